// The player: a video, its optical flow, and a timeline that shows and sets the time of both.
// Gradio changes the content in place when more is known, so elements are looked up when needed.
const STEP = 0.32; // seconds, a step of the network at 25 fps
const KEYS = {
  ArrowRight: STEP, ArrowUp: STEP, ArrowLeft: -STEP, ArrowDown: -STEP,
  PageUp: 10 * STEP, PageDown: -10 * STEP, Home: -Infinity, End: Infinity,
};

class Player extends HTMLElement {
  connectedCallback() {
    this.addEventListener("click", (event) => this.click(event));
    this.addEventListener("keydown", (event) => this.press(event));
    this.addEventListener("pointerdown", (event) => this.drag(event));
    // media events do not bubble
    for (const name of ["play", "pause", "ended"]) this.addEventListener(name, (event) => this.follow(event), true);
    for (const name of ["seeked", "timeupdate", "loadedmetadata"]) this.addEventListener(name, (event) => this.moved(event), true);
    new MutationObserver(() => this.draw()).observe(this, { childList: true, subtree: true, attributeFilter: ["data-steps"] });
    this.draw();
  }

  get lead() { return this.querySelector("video.lead"); }
  get others() { return this.querySelectorAll("video:not(.lead)"); }
  get slider() { return this.querySelector(".scrubber"); }
  get seconds() { return Number(this.dataset.seconds); }

  click(event) {
    const part = event.target.closest("[data-seek]");
    if (part) this.seek(Number(part.dataset.seek));
    else if (event.target.closest(".play, video")) this.toggle();
  }

  press(event) {
    if (event.target !== this.slider) return;
    if (event.key in KEYS) this.seek(this.lead.currentTime + KEYS[event.key]);
    else if (event.key === " " || event.key === "Enter") this.toggle();
    else return;
    event.preventDefault();
  }

  drag(event) {
    const slider = event.target.closest(".scrubber");
    if (!slider || event.button) return;
    const move = (now) => {
      const box = slider.getBoundingClientRect();
      this.seek(((now.clientX - box.left) / box.width) * this.seconds);
    };
    move(event);
    slider.setPointerCapture(event.pointerId);
    slider.addEventListener("pointermove", move);
    const end = () => slider.removeEventListener("pointermove", move);
    for (const name of ["pointerup", "pointercancel"]) slider.addEventListener(name, end, { once: true });
  }

  toggle() {
    if (!this.lead.paused) this.lead.pause();
    else {
      if (this.lead.currentTime >= this.seconds - 0.02) this.seek(0);
      this.lead.play();
    }
  }

  seek(time) {
    const wanted = Math.min(Math.max(time, 0), this.seconds);
    this.lead.currentTime = wanted;
    for (const video of this.others) video.currentTime = wanted;
    this.draw();
  }

  follow(event) {
    if (event.target !== this.lead) return;
    const playing = !this.lead.paused && !this.lead.ended;
    const button = this.querySelector(".play");
    button.textContent = playing ? "❚❚" : "▶";
    button.setAttribute("aria-label", playing ? "Pause" : "Play");
    for (const video of this.others) {
      video.currentTime = this.lead.currentTime;
      playing ? video.play() : video.pause();
    }
    cancelAnimationFrame(this.frame);
    const step = () => {
      this.draw();
      if (this.isConnected && !this.lead.paused) this.frame = requestAnimationFrame(step);
    };
    step();
  }

  moved(event) {
    if (event.target === this.lead) this.draw();
    else if (event.type === "loadedmetadata") event.target.currentTime = this.lead.currentTime;
  }

  draw() {
    const time = this.lead.currentTime;
    const said = [...this.querySelectorAll("[data-steps]")].map((lane) => this.say(lane, time));
    const set = (node, text) => node.textContent === text || (node.textContent = text); // or it would be observed
    set(this.querySelector(".clock"), `${time.toFixed(1)} / ${this.seconds.toFixed(1)} s`);
    for (const [lane, text] of said) set(lane.querySelector(".now"), text);
    this.querySelector(".cursor").style.left = `${(100 * Math.min(time, this.seconds)) / this.seconds}%`;
    this.slider.setAttribute("aria-valuenow", time.toFixed(2));
    this.slider.setAttribute("aria-valuetext", [`${time.toFixed(1)} seconds`, ...said.map(([, text]) => text)].join("; "));
  }

  say(lane, time) {
    const { ends, best, p, labels } = JSON.parse(lane.dataset.steps);
    const after = ends.findIndex((end) => time < end);
    const step = after < 0 ? ends.length - 1 : after;
    return [lane, `at ${time.toFixed(1)} s: ${labels[best[step]]}, ${Math.round(100 * p[step])} %`];
  }
}

customElements.define("i3d-player", Player);
