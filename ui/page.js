() => {
  // Keys for the whole page, the prompt ready to be typed over, and what Gradio's parts leave unsaid.
  // Stop is heard here, because Gradio's own events (6.31) end with the connection, and it holds after that, too.
  // A double click on Draw is one drawing: its second half lands on Stop, which took Draw's place.
  document.addEventListener("click", (event) => {
    if (event.detail <= 1 && event.target.closest("#stop")) window.stepwise.stop();
  });
  document.addEventListener("keydown", (event) => {
    const busy = document.body.classList.contains("busy");
    if (event.key === "Escape" && busy) window.stepwise.stop();
    if (event.key === "Enter" && event.repeat && event.target.closest("#draw, #stop")) event.preventDefault();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !busy) document.querySelector("#draw").click();
  });
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
