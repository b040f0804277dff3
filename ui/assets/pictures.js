// Finished pictures' files, as they arrive. One that doesn't (a phone in the background, a tunnel) is asked for
// again until it does; only a server that answers so has deleted it. In the page's head, so before its parts.
(() => {
  const page = (window.stepwise ??= {});
  const FIRST = 1000, LONGEST = 60_000;  // milliseconds between two tries
  const late = new Set(), gone = new Set();

  const arrives = (src) => new Promise((resolve) => {
    const image = new Image();
    image.onload = () => image.decode().then(() => resolve(true), () => resolve(true));
    image.onerror = () => resolve(false);
    image.src = src;
  });

  // Why it didn't arrive: an image's error doesn't tell. 0: nobody answers.
  const status = async (src) => {
    try { return (await fetch(src, { method: "HEAD", cache: "no-store" })).status; }
    catch { return 0; }
  };

  // Until that has passed, or the connection or the visitor is back, whichever is first.
  const wait = (pause) => new Promise((resolve) => {
    const over = new AbortController(), { signal } = over;
    const end = () => { clearTimeout(timer); over.abort(); resolve(); };
    const timer = setTimeout(end, pause);
    window.addEventListener("online", end, { signal });
    document.addEventListener("visibilitychange", () => document.hidden || end(), { signal });
  });

  page.pictures = {
    late: (src) => late.has(src),
    gone: (src) => gone.has(src),

    // Resolves once the file is here (true), or can't come any more or isn't wanted (false).
    fetch: async (src, wanted, news) => {
      for (let pause = FIRST; wanted() && !gone.has(src); pause = Math.min(2 * pause, LONGEST)) {
        if (await arrives(src)) { late.delete(src); return true; }
        const answer = await status(src);
        if (answer === 404 || answer === 410) gone.add(src);
        else late.add(src);
        if (answer === 401) page.visit.answers();  // a login that has ended: to the page where one logs in
        news();
        if (!gone.has(src)) await wait(pause);
      }
      late.delete(src);
      return false;
    },
  };
})();
