() => {
  // Keys for the whole page, the prompt ready to be typed over, and what Gradio's parts leave unsaid.
  // Stop is heard here, because Gradio's own events (6.31) end with the connection, and it holds after that, too.
  // A double click on Draw is one drawing: its second half lands on Stop, which took Draw's place.
  document.addEventListener("click", (event) => {
    if (event.detail <= 1 && event.target.closest("#stop")) window.stepwise.stop();
  });
  // Escape closes what is open, and stops where nothing is. What is open is looked for before its own part has
  // heard the key and closed it.
  const OPEN = ":is(dialog[open], [role=dialog], [aria-modal=true], [role=listbox], [role=menu], [popover]:popover-open)";
  const FIELD = "#settings :is(textarea, input:not([type=range], [type=radio]))";
  let closes = false;
  window.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    const open = [...document.querySelectorAll(OPEN)].filter((part) => part.checkVisibility());
    const field = event.target.closest?.(FIELD);
    closes = event.isComposing || !!document.fullscreenElement || open.length > 0 || !!field;
    if (event.isComposing) return;
    // Gradio's panels (6.31) don't hear the key.
    if (open.length) open.at(-1).querySelector(":scope > .backdrop")?.click();
    else field?.blur();
  }, true);
  document.addEventListener("keydown", (event) => {
    const busy = document.body.classList.contains("busy");
    if (event.key === "Escape" && busy && !closes && !event.defaultPrevented) window.stepwise.stop();
    if (event.key === "Enter" && event.repeat && event.target.closest("#draw, #stop")) event.preventDefault();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !busy) {
      window.stepwise.settings.fill(event.target);
      document.querySelector("#draw").click();
    }
  });
  document.addEventListener("blur", ({ target }) => window.stepwise.settings?.fill(target), true);
  const prompt = document.querySelector("#prompt textarea");
  prompt?.addEventListener("focus", () => prompt.select(), { once: true });

  // Gradio's accordions (6.31) don't tell a screen reader whether they are open. They may be mounted after this.
  const tell = () => {
    for (const fold of document.querySelectorAll(".gr-accordion > button"))
      fold.setAttribute("aria-expanded", fold.classList.contains("open"));
  };
  new MutationObserver(tell).observe(document.body, { subtree: true, childList: true, attributeFilter: ["class"] });
  tell();
}
