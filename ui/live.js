// The picture's frame: one <figure> whose <img>s are kept and only change their src, so that nothing
// flickers or jumps. The value is ui/live.py's; a new one comes with every preview.
const find = (selector) => element.querySelector(selector);
const page = (window.stepwise ??= {});
let phase = null, frame = 0, stopping = false;

const cells = (count) => {
  const grid = find(".grid");
  while (grid.children.length > count) grid.lastElementChild.remove();
  while (grid.children.length < count) grid.append(document.createElement("img"));
  grid.dataset.count = count;
  return [...grid.children];
};

const show = (img, src, alt) => {
  img.alt = alt;
  if (!src) { img.removeAttribute("src"); img.hidden = true; img.dataset.src = ""; return; }
  if (img.dataset.src === src) return;
  img.dataset.src = src;
  const put = () => { if (img.dataset.src === src) { img.src = src; img.hidden = false; } };
  if (src.startsWith("data:")) return put();
  const next = new Image();  // a file is swapped in once it is decoded; until then the preview stays
  next.onload = () => next.decode().then(put, put);
  next.onerror = () => { if (img.dataset.src === src && !img.getAttribute("src")) img.hidden = true; };
  next.src = src;
};

const downloads = (value) => {
  const links = find(".downloads");
  const urls = value.state === "running" ? [] : (value.pictures ?? []).slice(0, value.finished);
  links.replaceChildren(...urls.map((url, index) => {
    const link = document.createElement("a");
    link.href = url; link.download = url.split("/").pop();
    link.textContent = urls.length > 1 ? `Download ${index + 1}` : "Download";
    return link;
  }));
};

const paint = (value) => {
  const running = value.state === "running";
  element.dataset.state = value.state ?? "empty";
  if (value.pictures) {
    const alt = running ? `Preview of: ${value.prompt}` : value.prompt;
    cells(value.count).forEach((img, index) => show(img, value.pictures[index], alt));
    find(".empty").hidden = value.pictures.length > 0;
  }
  const bar = find("[role=progressbar]");
  bar.hidden = !running;
  bar.setAttribute("aria-valuenow", Math.round(100 * (value.progress ?? 0)));
  bar.firstElementChild.style.transform = `scaleX(${value.progress ?? 0})`;
  find(".line").textContent = value.line ?? "";
  downloads(value);
  find(".notes").replaceChildren(...[...(value.warnings ?? []), value.error].filter(Boolean).map((words) => {
    const note = document.createElement("p");
    note.textContent = words;
    note.className = words === value.error ? "error" : "warning";
    return note;
  }));
  if (value.announce && value.announce !== phase) find(".announce").textContent = value.announce;  // once a phase
  phase = value.announce ?? null;
};

watch("value", () => {
  const value = props.value ?? {};
  const running = value.state === "running";
  document.body.classList.toggle("busy", running);
  if (running && stopping) { stopping = false; trigger("halt", { job: value.job }); }
  if (!running) stopping = false;
  if (value.item && value.job !== page.kept) {
    page.kept = value.job;
    window.dispatchEvent(new CustomEvent("stepwise:drawn", { detail: value.item }));
  }
  if (document.hidden) paint(value);
  else frame ||= requestAnimationFrame(() => { frame = 0; paint(props.value ?? {}); });
});

window.addEventListener("stepwise:show", ({ detail: item }) => {
  if (document.body.classList.contains("busy")) return;
  const pictures = item.pictures.length ? item.pictures : [item.thumbnail];
  const { prompt, images } = item.settings;
  paint({ state: "finished", pictures, finished: item.pictures.length, count: images, prompt, line: item.line });
});

page.begin = () => {
  document.body.classList.add("busy");
  stopping = false; phase = null;
  find(".line").textContent = "Sending…";
  find(".downloads").replaceChildren();
  find(".notes").replaceChildren();
};

page.stop = () => {
  const value = props.value ?? {};
  find(".line").textContent = "Stopping…";
  if (value.state === "running") trigger("halt", { job: value.job });
  else stopping = true;  // the server hasn't answered yet: stop as soon as it has
};

page.lost = () => {
  if (!document.body.classList.contains("busy")) return;
  document.body.classList.remove("busy");
  find(".line").textContent = "";
  const note = document.createElement("p");
  note.className = "error";
  note.textContent = "The connection to the server was lost, or it takes no more drawings now. Try again in a moment.";
  find(".notes").replaceChildren(note);
  find(".announce").textContent = note.textContent;
};
