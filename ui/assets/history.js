// This visit's pictures: kept in the tab's own sessionStorage, so that tabs never meet and the server keeps
// no one's history. A click puts a picture's prompt and settings back.
const KEY = "stepwise:history", MOST = 24;
const read = () => { try { return JSON.parse(sessionStorage.getItem(KEY)) ?? []; } catch { return []; } };

const render = (items) => {
  element.querySelector(".none").hidden = items.length > 0;
  element.querySelector("ul").replaceChildren(...items.map((item) => {
    const entry = document.createElement("li"), button = document.createElement("button"), img = new Image();
    img.src = item.previews[0];
    img.alt = "";
    button.type = "button";
    button.title = `${item.settings.prompt} (seed ${item.settings.seed})`;
    button.setAttribute("aria-label", `Use again: ${item.settings.prompt}, seed ${item.settings.seed}`);
    button.append(img);
    button.addEventListener("click", () => {
      window.dispatchEvent(new CustomEvent("stepwise:show", { detail: item }));
      (window.stepwise ??= {}).chosen = item.settings;
      trigger("reuse");
    });
    entry.append(button);
    return entry;
  }));
};

const save = (items) => {
  for (let kept = items.slice(0, MOST); ; kept = kept.slice(0, -1)) {
    try { sessionStorage.setItem(KEY, JSON.stringify(kept)); return kept; }
    catch (full) { if (!kept.length) return items; }
  }
};

window.addEventListener("stepwise:drawn", ({ detail }) => render(save([detail, ...read()])));
render(read());
