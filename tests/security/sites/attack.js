// What a page may try with another address: all ways in which a browser sends a request for it. Gives what its
// script could read of answers that aren't refusals, as [how, path, text].
async ({ victim, reads, sends }) => {
  const got = [];
  const note = (how, path, text) => text && got.push([how, path, String(text).slice(0, 300)]);
  const quietly = (doing) => doing.catch(() => {});
  const LONG = 20000;  // milliseconds after which something hangs
  const within = (begin) => new Promise((done) => { setTimeout(done, LONG); begin(done); });
  const add = (name, attributes, done) => {
    const part = Object.assign(document.createElement(name), attributes);
    part.addEventListener("load", () => done?.(true));
    part.addEventListener("error", () => done?.(false));
    document.body.append(part);
    return part;
  };
  const asJson = (value) => new Blob([value], { type: "application/json" });
  // One for all forms and one for all reads: a frame is dear to make and cheap to lead elsewhere.
  const answers = add("iframe", { name: "target" + Math.random() }), reader = add("iframe");

  for (const { path, body, fields } of sends) {
    const url = victim + path;
    navigator.sendBeacon(url, body);
    navigator.sendBeacon(url, asJson(body));
    navigator.sendBeacon(url, new URLSearchParams(fields));
    for (const referrerPolicy of ["no-referrer", "unsafe-url"]) {
      const common = { method: "POST", credentials: "include", referrerPolicy };
      await quietly(fetch(url, { ...common, mode: "no-cors", body }));
      for (const each of [body, asJson(body), new URLSearchParams(fields)])
        await quietly(fetch(url, { ...common, body: each })
          .then(async (answer) => answer.ok && note("fetch", path, await answer.text())));
    }
    await within((done) => {
      const asking = new XMLHttpRequest();
      asking.open("POST", url);
      asking.withCredentials = true;
      asking.onload = () => asking.status < 300 && note("XMLHttpRequest", path, asking.responseText);
      asking.onloadend = done;
      asking.send(body);
    });
    const asText = body[0] === "{" ? { [body.slice(0, -1) + ',"x":"']: '"}' } : fields;  // JSON, with x: "="
    for (const enctype of ["application/x-www-form-urlencoded", "multipart/form-data", "text/plain"])
      await within((done) => {
        const form = add("form", { method: "post", action: url, enctype, target: answers.name });
        for (const [name, value] of Object.entries(enctype === "text/plain" ? asText : fields))
          form.append(Object.assign(document.createElement("input"), { name, value }));
        answers.onload = done;
        form.submit();
      });
  }

  for (const path of reads) {
    const url = victim + path;
    for (const mode of ["cors", "no-cors"])
      for (const referrerPolicy of ["no-referrer", "unsafe-url"])
        await quietly(fetch(url, { mode, credentials: "include", referrerPolicy })
          .then(async (answer) => answer.ok && note("fetch", path, await answer.text())));
    await within((done) => {
      const asking = new XMLHttpRequest();
      asking.open("GET", url);
      asking.withCredentials = true;
      asking.onload = () => asking.status < 300 && note("XMLHttpRequest", path, asking.responseText);
      asking.onloadend = done;
      asking.send();
    });
    await within((done) => {
      const source = new EventSource(url, { withCredentials: true });
      const end = () => { source.close(); done(); };
      source.onopen = () => { note("EventSource", path, "it opened"); end(); };
      source.onerror = end;
    });
    for (const referrerPolicy of ["no-referrer", "unsafe-url"]) {
      await within((done) => add("img", { referrerPolicy, src: url }, (shown) => { shown && note("img", path, "it is shown"); done(); }));
      await within((done) => add("script", { referrerPolicy, src: url }, done));
      await within((done) => {
        const sheet = add("link", { referrerPolicy, rel: "stylesheet", href: url }, () => {
          try { note("stylesheet", path, [...sheet.sheet.cssRules].map((rule) => rule.cssText).join()); } catch {}
          done();
        });
      });
    }
    await within((done) => {
      reader.onload = () => {
        try { note("iframe", path, reader.contentDocument.body.textContent); } catch {}
        done();
      };
      reader.src = url;
    });
  }
  await within((done) => {
    const socket = new WebSocket(victim.replace("http", "ws") + "/gradio_api/queue/join");
    socket.onopen = () => note("WebSocket", "/gradio_api/queue/join", "it opened");
    socket.onclose = done;
  });
  return got;
}
