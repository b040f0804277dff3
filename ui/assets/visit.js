// What a tab keeps over a reload, the visitor's own or Gradio's once a restarted server answers: the drawing
// that had not ended, and the prompt. In sessionStorage, which is one tab's alone: a tab opened beside this one
// starts with nothing, and the drawing stays where it was asked for. In the page's head, so before its parts.
(() => {
  const page = (window.stepwise ??= {});
  const key = (name) => `stepwise:${name}:${location.pathname}`;
  const read = (name) => { try { return JSON.parse(sessionStorage.getItem(key(name))); } catch { return null; } };
  const write = (name, value) => {
    try { sessionStorage.setItem(key(name), JSON.stringify(value)); }
    catch {}  // full, or forbidden: then a reload starts with nothing
  };

  page.visit = {
    // {job: its id, stop: whether it was asked to stop}; null: none that had not ended.
    get drawing() { return read("drawing"); },
    set drawing(value) { write("drawing", value); },
    get prompt() { return read("prompt"); },

    // An id known before the server has answered: however early the tab is reloaded, it finds its drawing.
    id: () => {  // (crypto.randomUUID is missing where the page comes over plain http)
      const bytes = crypto.getRandomValues(new Uint8Array(16));
      const hex = [...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("");
      return hex.replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
    },

    // Whether the server that this page came from answers. Another one in its place can't go on with this
    // page's streams: the page is loaded again, where Gradio has not noticed that they broke.
    answers: async () => {
      try {
        const answer = await fetch("gradio_api/app_id", { cache: "no-store", signal: AbortSignal.timeout(5000) });
        if (answer.status === 401) location.reload();  // a login that has ended: to the page where one logs in
        if (!answer.ok) return false;
        if ((await answer.json()).app_id !== window.gradio_config.app_id) location.reload();
        return true;
      } catch { return false; }
    },
  };

  // One login is that of all tabs of a browser: where one of them logs out, or in as somebody else, the others
  // look again. (The page where one logs in, login.html, says "", or ":out" after a logout.)
  const login = window.BroadcastChannel && new BroadcastChannel(`stepwise-login:${new URL("./", location).pathname}`);
  const meet = () => {
    const name = window.gradio_config?.username;
    if (!login || !name) return;
    login.onmessage = ({ data }) => {
      if (data === ":out") page.visit.forget();
      if (data === "" || data === ":out") page.visit.answers();
      else if (data !== name) location.reload();
    };
    login.postMessage(name);
  };
  if (document.readyState === "complete") meet();  // Gradio may have put this into the page late
  else window.addEventListener("load", meet);

  // What the server answered to the last drawing that was asked for: Gradio (6.31) tells its failures apart to nobody.
  const plain = window.fetch;
  window.fetch = async (...call) => {
    const answer = await plain(...call);
    if (String(call[0]?.url ?? call[0]).includes("/queue/join")) {
      page.visit.joined = { status: answer.status };
      if (answer.status === 401) page.visit.answers();
      if (!answer.ok) {
        const { detail } = await answer.clone().json().catch(() => ({}));
        if (typeof detail === "string") page.visit.joined.words = detail.replace(/\.$/, "");
      }
    }
    return answer;
  };

  // Who logs out leaves nothing in the tab for who comes after them.
  let kept = true;
  page.visit.forget = () => {
    kept = false;
    for (const name of Object.keys(sessionStorage)) if (name.startsWith("stepwise:")) sessionStorage.removeItem(name);
  };

  page.visit.out = () => {
    page.visit.forget();
    try { sessionStorage.setItem("stepwise:out", ":out"); } catch {}
  };

  // As late as a page can: what a history or an example put into the field counts as typed.
  const keep = () => {
    const field = document.querySelector("#prompt textarea");
    if (field && kept) write("prompt", field.value);
  };
  window.addEventListener("pagehide", keep);
  document.addEventListener("visibilitychange", () => document.hidden && keep());  // a phone may never come back
})();
