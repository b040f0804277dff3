// A mistake's words at the field that has it, beside those under the picture, which may be far away. In the page's
// head, so before its parts.
(() => {
  const page = (window.stepwise ??= {});
  const AT = { negative_prompt: "#negative", seed: "#seed .block" };
  const at = (name) => AT[name] ?? `#${name}`;  // the others' ids are their names
  const FRAMES = 60;  // for which a fold may take to open
  const control = (name) => document.querySelector(`${at(name)} :is(textarea, input:not([type=range]))`);
  let last = {};

  const clear = (name) => {
    document.querySelector(`#problem-${name}`)?.remove();
    const field = control(name);
    field?.removeAttribute("aria-invalid");
    field?.removeAttribute("aria-describedby");
  };

  const mark = (name, words) => {
    const field = control(name), note = document.createElement("p");
    note.className = "problem"; note.id = `problem-${name}`; note.textContent = words;
    if (name === "prompt") document.querySelector("#ask").after(note);  // its box has no room for them
    else document.querySelector(at(name)).append(note);
    field.setAttribute("aria-invalid", "true");
    field.setAttribute("aria-describedby", note.id);
  };

  const place = (problems, frames) => {
    if (problems !== last) return;  // others came meanwhile
    const names = Object.keys(problems);
    const hidden = names.filter((name) => !control(name)?.checkVisibility());
    const fold = document.querySelector("#settings > button, .gr-accordion:has(#seed) > button");
    if (hidden.length && frames === FRAMES && fold && !fold.classList.contains("open")) fold.click();
    if (hidden.length && frames) { requestAnimationFrame(() => place(problems, frames - 1)); return; }
    const shown = names.filter((name) => !hidden.includes(name));
    for (const name of shown) mark(name, problems[name]);
    const first = shown.length && control(shown[0]);
    if (first && first.role !== "combobox") first.focus();  // a list would open over the words
  };

  page.fields = {
    // By the parameter's name; a new answer takes the words of the one before away.
    tell: (problems) => {
      for (const name of Object.keys(last)) clear(name);
      last = { ...problems };
      place(last, FRAMES);
    },
  };

  document.addEventListener("input", ({ target }) => {
    for (const name of Object.keys(last)) if (target.closest?.(at(name))) clear(name);
  });
})();
