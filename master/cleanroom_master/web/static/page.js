// What pages have beyond their HTML: times in the reader's zone, clocks that tick, parts that are live.
// Without it every page is whole.

const zoned = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });

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
  for (const one of root.querySelectorAll("time[datetime]")) {
    one.textContent = zoned.format(new Date(one.dateTime));
  }
  tick();
}

// A page that says when it asks again does so without losing where the reader is.
const again = Number(document.body.dataset.again || 0);
if (again) setTimeout(() => location.reload(), again * 1000);

enhance(document);
setInterval(tick, 1000);
