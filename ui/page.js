() => {
  // Keys for the whole page, and the prompt ready to be typed over.
  document.addEventListener("keydown", (event) => {
    const busy = document.body.classList.contains("busy");
    if (event.key === "Escape" && busy) document.querySelector("#stop").click();
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && !busy) document.querySelector("#draw").click();
  });
  const prompt = document.querySelector("#prompt textarea");
  prompt?.addEventListener("focus", () => prompt.select(), { once: true });
}
