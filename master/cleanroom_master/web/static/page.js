// What pages have beyond their HTML: times in the reader's zone, clocks that tick, parts and logs that are live.
// Without it every page is whole.

const zoned = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const body = document.body;

function duration(seconds) {
  if (seconds < 59.95) return `${Math.max(0, seconds).toFixed(0)} s`;
  const whole = Math.round(seconds);
  for (const [unit, name, below, belowName] of [[86400, "d", 3600, "h"], [3600, "h", 60, "min"], [60, "min", 1, "s"]]) {
    if (whole >= unit) {
      const rest = Math.floor((whole % unit) / below);
      return `${Math.floor(whole / unit)} ${name}${rest ? ` ${rest} ${belowName}` : ""}`;
    }
  }
}

function tick() {
  for (const one of document.querySelectorAll(".ticking[data-since]")) {
    one.textContent = duration((Date.now() - Date.parse(one.dataset.since)) / 1000);
  }
}

function enhance(root) {
  for (const one of root.querySelectorAll("time[datetime]")) one.textContent = zoned.format(new Date(one.dateTime));
  tick();
}

function say(words) {
  const place = document.getElementById("liveness");
  if (place && place.textContent !== words) place.textContent = words;
}

// A source of events is open while its page is looked at: browsers have few connections for each server.
function whileVisible(open) {
  let source = null;
  const change = () => {
    if (document.hidden) {
      source?.close();
      source = null;
    } else source ??= open();
  };
  document.addEventListener("visibilitychange", change);
  change();
  return () => {
    document.removeEventListener("visibilitychange", change);
    source?.close();
  };
}

// Live pages -----------------------------------------------------------------------------------------------------

const main = document.querySelector("main");
const sent = new Map();

function remember(from) {
  sent.clear();
  for (const one of from.children) if (one.id) sent.set(one.id, one.outerHTML);
}

// What a reader has opened, scrolled to or is at; the function that is returned brings it back in what came instead.
function keep(old) {
  const open = new Map([...old.querySelectorAll("details[id]")].map((one) => [one.id, one.open]));
  const scrolled = [...old.querySelectorAll(".scroll")].map((one) => one.scrollLeft);
  const at = old.contains(document.activeElement) ? document.activeElement : null;
  const link = at?.getAttribute("href");
  return (fresh) => {
    for (const one of fresh.querySelectorAll("details[id]")) if (open.has(one.id)) one.open = open.get(one.id);
    fresh.querySelectorAll(".scroll").forEach((one, index) => (one.scrollLeft = scrolled[index] ?? 0));
    const same = at?.id ? document.getElementById(at.id) : link && fresh.querySelector(`[href="${CSS.escape(link)}"]`);
    same?.focus({ preventScroll: true });
    enhance(fresh);
  };
}

async function refresh() {
  const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
  if (!answer.ok) throw new Error(answer.statusText);
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const next = page.querySelector("main");
  const ids = (from) => [...from.children].map((one) => one.id || one.tagName).join(" ");
  if (ids(next) === ids(main)) {
    for (const one of [...next.children]) {
      if (!one.id || sent.get(one.id) === one.outerHTML) continue;
      sent.set(one.id, one.outerHTML);
      const old = document.getElementById(one.id);
      const restore = keep(old);
      old.replaceWith(document.adoptNode(one));
      restore(one);
      one.classList.add("fresh");
    }
  } else {
    remember(next);
    const restore = keep(main);
    main.replaceChildren(...document.adoptNode(next).childNodes);
    restore(main);
  }
  if (document.title !== page.title) {
    document.title = page.title;
    say(page.title);
  }
}

function follow(address) {
  remember(main);
  let [busy, again, behind] = [false, false, false];
  const changed = async () => {
    again = true;
    if (busy) return;
    busy = true;
    while (again) {
      again = false;
      try {
        await refresh();
        if (behind) say("Live");
        behind = false;
      } catch {
        // The database or the service is away for a moment; what is shown is still what was.
        say("Not up to date; trying again");
        behind = again = true;
        await new Promise((done) => setTimeout(done, 1000));
      }
    }
    busy = false;
  };
  whileVisible(() => {
    const source = new EventSource(address);
    source.addEventListener("open", () => say("Live"));
    source.addEventListener("error", () => say("Not connected; trying again"));
    source.addEventListener("change", changed);
    return source;
  });
}

// Growing logs ---------------------------------------------------------------------------------------------------

const KEPT = 5000;

function followLog(step, last) {
  const log = document.getElementById("log");
  const stop = whileVisible(() => {
    const source = new EventSource(`/log/${step}/live?after=${last}`);
    source.addEventListener("open", () => say("Live"));
    source.addEventListener("error", () => say("Not connected; trying again"));
    source.addEventListener("lines", (event) => {
      const atEnd = innerHeight + scrollY >= document.documentElement.scrollHeight - 40;
      const lines = JSON.parse(event.data).filter(([number]) => number > last);
      const html = lines.map(
        ([number, text]) => `<span class="line" id="L${number}"><a href="#L${number}">${number}</a> ${text}\n</span>`,
      );
      // The server has made all of it harmless, as in the page itself.
      log.insertAdjacentHTML("beforeend", html.join(""));
      last = lines.at(-1)?.[0] ?? last;
      while (log.childElementCount > KEPT) log.firstElementChild.remove();
      document.getElementById("last-line").textContent = document.getElementById("line-count").textContent = last;
      if (atEnd) scrollTo(0, document.documentElement.scrollHeight);
    });
    source.addEventListener("end", () => {
      stop();
      location.reload();
    });
    return source;
  });
}

// ----------------------------------------------------------------------------------------------------------------

// A page that says when it asks again does so without losing where the reader is.
if (body.dataset.again) setTimeout(() => location.reload(), Number(body.dataset.again) * 1000);
if (body.dataset.live) follow(body.dataset.live);
enhance(document);
if (body.dataset.log) followLog(Number(body.dataset.log), Number(body.dataset.last));
setInterval(tick, 1000);
