// Draws the rows of one page at a time, filtered by view, subset and search. Texts are set as text, never as markup.
const data = JSON.parse(document.getElementById("rows").textContent);
const ROWS_IN_PAGE = 25;
const LONG = 150;
const WORDS = {
  chosen: "chosen as negative", kept: "survived, not chosen", dropped: "dropped as false negative", error: "no verdict",
  positive: "positive", answer: "never a negative", matched: "match, by a person", denied: "negative, by a person",
};
const SIGNS = {chosen: "✓", kept: "·", dropped: "✕", error: "!", positive: "★", answer: "○", matched: "★", denied: "✓"};
const find = (id) => document.getElementById(id);
const state = {view: "all", subset: "", needle: "", page: 0, unfolded: new Set()};
const overrides = new Overrides(data.corpus, data.given, showOverrides, render);
const labels = new Labels(data.corpus, data.sample);

function element(tag, attributes, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else if (value !== null && value !== false) made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

// ------------------------------------------------------------------------------------------ filters

const textOf = (place) => place === null ? "" : data.texts[place];
const holds = (text) => text.toLowerCase().includes(state.needle);
const itemHolds = ([id, text]) => holds(id) || holds(textOf(text));

function inView(rows, view) {
  if (view === "all") return rows;
  if (view === "label") return data.sample.pairs;
  if (view === "overridden") { const touched = overrides.rows; return rows.filter((row) => touched.has(row.id)); }
  const at = data.views.indexOf(view);
  return rows.filter((row) => row.views.includes(at));
}

function searched() { // returns the rows of the subset that contain the searched text, of all views
  const hits = state.needle ? data.items.map(itemHolds) : null;
  return data.rows.filter((row) => (!state.subset || row.subset === state.subset) && (!hits || holds(row.id) ||
    holds(textOf(row.asks[0])) || [...row.positives, ...row.candidates].some(([item]) => hits[item])));
}

function render() {
  const found = searched(), rows = inView(found, state.view);
  for (const button of document.querySelectorAll("[data-view]")) {
    button.setAttribute("aria-pressed", String(button.dataset.view === state.view));
    button.querySelector("span").textContent = inView(found, button.dataset.view).length.toLocaleString("en");
  }
  const pages = Math.max(1, Math.ceil(rows.length / ROWS_IN_PAGE));
  state.page = Math.min(Math.max(state.page, 0), pages - 1);
  const first = state.page * ROWS_IN_PAGE, here = rows.slice(first, first + ROWS_IN_PAGE);
  const place = rows.length ? `rows ${first + 1}–${first + here.length} of ${rows.length.toLocaleString("en")}` : "no rows";
  for (const pager of document.querySelectorAll(".pager")) {
    const [back, told, next] = pager.children;
    told.textContent = place;
    pager.hidden = rows.length === 0;
    back.disabled = state.page === 0;
    next.disabled = state.page === pages - 1;
  }
  find("list").replaceChildren(...here.map(state.view === "label" ? drawPair : drawRow));
  find("empty").hidden = rows.length > 0;
}

function change(what) {
  Object.assign(state, {page: 0}, what);
  render();
  if (find("list").getBoundingClientRect().top < 0) document.querySelector(".pager").scrollIntoView();
}

// ------------------------------------------------------------------------------------------ one row

function marked(text) { // marks the searched text
  if (!state.needle) return [text];
  const parts = [], low = text.toLowerCase();
  let from = 0;
  if (low.length === text.length) { // a few letters change their length in lower case: then no text is marked
    for (let at; (at = low.indexOf(state.needle, from)) >= 0; from = at + state.needle.length) {
      parts.push(text.slice(from, at), element("mark", {}, text.slice(at, at + state.needle.length)));
    }
  }
  return [...parts, text.slice(from)];
}

function drawText(text) {
  if (text === "") return null;
  const body = element("p", {class: text.length > LONG ? "text long" : "text", dir: "auto"}, ...marked(text));
  if (text.length <= LONG) return body;
  const more = element("button", {type: "button", class: "quiet", "aria-expanded": "false", onclick: () => {
    const long = body.classList.toggle("long");
    more.textContent = long ? "more" : "less";
    more.setAttribute("aria-expanded", String(!long));
  }}, "more");
  return element("div", {}, body, more);
}

function drawPicture(place, name) { // returns a thumbnail and null, or null and the reason why the image is missing
  if (place === null) return [null, null];
  const picture = data.pictures[place];
  if (typeof picture === "string") {
    const thumb = element("button", {type: "button", class: "thumb", "aria-expanded": "false", title: "enlarge or reduce", onclick: () => {
      thumb.setAttribute("aria-expanded", String(thumb.getAttribute("aria-expanded") === "false"));
    }}, element("img", {src: `data:image/webp;base64,${picture}`, alt: `image of ${name}`}));
    return [thumb, null];
  }
  const why = picture === null ? "left out: the page is full" : picture.why;
  return [null, element("p", {class: "gone"}, element("b", {}, "no image"), ` ${why}`)];
}

function drawCell(row, [item, rank, similarity, score, alpha, fateAt, reason]) {
  const [id, text, picture] = data.items[item], fate = data.fates[fateAt];
  const number = (value) => value === null ? "–" : value.toFixed(3);
  const [thumb, gone] = drawPicture(picture, id);
  const facts = element("dl", {},
    ...(rank === null ? [] : [element("div", {}, element("dt", {title: "from 1; the column rank of the scores counts from 0"}, "rank"), element("dd", {}, String(rank + 1)))]),
    element("div", {}, element("dt", {}, "similarity"), element("dd", {}, number(similarity))),
    element("div", {}, element("dt", {}, "judge"), element("dd", {class: "judge"}, number(score))));
  const head = element("b", {class: "fate"}), why = element("p", {class: "reason"});
  const cell = element("section", {tabindex: "-1"});
  const tell = () => { // an override made on the page shows at once, but its effect on the row does not
    const said = overrides.get(row.id, id), isNew = overrides.isNew(row.id, id);
    const now = isNew && said ? {match: fate === "positive" ? fate : "matched", negative: "denied"}[said.verdict] : fate;
    cell.className = now === fate ? `cell ${fate}` : `cell ${fate} ${now}`;
    cell.setAttribute("aria-label", `${WORDS[now]}: ${id}`);
    head.replaceChildren(element("span", {"aria-hidden": "true"}, SIGNS[now]), ` ${WORDS[now]}`);
    why.textContent = isNew ? `${said ? "decided" : "withdrawn"} after this page was made; before: ${reason}` : reason;
  };
  tell();
  cell.append(...(thumb === null ? [] : [thumb]), element("div", {class: "said"}, head, facts, drawBar(score, alpha), gone,
    drawText(textOf(text)), why,
    element("div", {class: "foot"}, drawDecision(row, id, tell), element("code", {title: id}, ...marked(id)))));
  return cell;
}

function drawBar(score, alpha) { // draws the judge's score as a bar, and the cut α as a tick on the bar
  if (score === null) return null;
  const bar = element("div", {class: "bar", "aria-hidden": "true"}, element("i", {}), alpha === null ? null : element("s", {}));
  bar.style.setProperty("--score", `${100 * score}%`);
  if (alpha !== null) bar.style.setProperty("--alpha", `${100 * Math.min(1, Math.max(0, alpha))}%`);
  return bar;
}

function drawDecision(row, item, tell) {
  const place = element("div", {class: "decide"});
  const update = () => {
    const said = overrides.get(row.id, item);
    const verdicts = item === null ? ["drop"] : ["match", "negative"];
    place.replaceChildren(
      ...verdicts.map((verdict) => element("button", {
        type: "button", "data-verdict": verdict, "aria-pressed": String(said !== undefined && said.verdict === verdict),
        onclick: () => { overrides.toggle(row.id, item, verdict); update(); tell(); place.querySelector(`[data-verdict=${verdict}]`).focus(); },
      }, verdict === "drop" ? "leave row out" : verdict)),
      said === undefined ? "" : element("input", {
        value: said.note, placeholder: "why? (a note)", "aria-label": "note", onchange: (event) => overrides.note(row.id, item, event.target.value),
      }));
  };
  update();
  return place;
}

function drawRow(row) {
  const fateOf = ([, , , , , fateAt]) => data.fates[fateAt];
  const alphas = new Set(row.candidates.map(([, , , , alpha]) => alpha).filter((alpha) => alpha !== null)); // one α for each judge that decides
  const open = state.unfolded.has(row.id);
  const isHit = ([item]) => state.needle !== "" && itemHolds(data.items[item]);
  const shown = row.candidates.filter((cell) => open || fateOf(cell) !== "kept" || isHit(cell));
  const kept = row.candidates.filter((cell) => fateOf(cell) === "kept").length;
  const [thumb, gone] = drawPicture(row.asks[1], row.id);
  const fold = kept === 0 ? null : element("button", {type: "button", class: "fold", "aria-expanded": String(open), onclick: () => {
    if (!state.unfolded.delete(row.id)) state.unfolded.add(row.id);
    const drawn = drawRow(row);
    article.replaceWith(drawn);
    drawn.querySelector(".fold").focus();
  }}, open ? `hide ${kept} not chosen` : `show ${kept} not chosen`);
  const article = element("article", {tabindex: "0", "aria-label": `query ${row.id}`},
    element("header", {},
      element("div", {}, element("span", {class: "subset"}, row.subset), element("code", {}, ...marked(row.id))),
      element("p", {class: "outcome"}, row.outcome),
      row.views.length === 0 ? null : element("ul", {class: "flags"}, ...row.views.map((at) => element("li", {}, data.views[at]))),
      drawDecision(row, null, () => {})),
    element("div", {class: "cells asked"},
      element("section", {class: "cell query", tabindex: "-1", "aria-label": "the query"}, thumb,
        element("div", {class: "said"}, element("b", {class: "fate"}, "query"), gone, drawText(textOf(row.asks[0])))),
      ...row.positives.map((cell) => drawCell(row, cell))),
    element("div", {class: "between"},
      element("h3", {}, row.candidates.length === 1 ? "1 candidate" : `${row.candidates.length} candidates`),
      element("span", {class: "faint"}, alphas.size === 1 ? `by similarity; dropped above α = ${[...alphas][0].toFixed(3)}` : "by similarity"), fold),
    shown.length === 0 ? null : element("div", {class: "cells"}, ...shown.map((cell) => drawCell(row, cell))));
  return article;
}

// ------------------------------------------------------------------------------------------ overrides, keys

function showOverrides() {
  const here = new Set(data.rows.map((row) => row.id)), all = [...overrides.said.values()];
  const away = all.filter((override) => !here.has(override.query_id)).length;
  find("overrides").textContent = `${all.length.toLocaleString("en")} override${all.length === 1 ? "" : "s"}` +
    (away ? ` (${away} of rows not on this page)` : "") + (overrides.kept ? "" : "; this browser does not store overrides: export them before you close the page");
  find("export").disabled = all.length === 0;
  const button = document.querySelector("[data-view=overridden] span");
  button.textContent = inView(searched(), "overridden").length.toLocaleString("en");
}

async function importFile(event) {
  const [file] = event.target.files;
  try {
    find("told").textContent = `imported ${overrides.add(await file.text())} overrides from ${file.name}`;
    render();
  } catch (error) { find("told").textContent = `${file.name} was not imported: ${error.message}`; }
  event.target.value = "";
}

function step(list, by) { // moves the focus within a list of elements
  const at = list.findIndex((child) => child.contains(document.activeElement));
  const to = list[Math.min(list.length - 1, Math.max(0, at < 0 ? 0 : at + by))];
  if (to) { to.focus(); to.scrollIntoView({block: "nearest"}); }
}

function onKey(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("input, select")) return;
  const row = document.activeElement.closest("article"), cell = document.activeElement.closest(".cell");
  const press = (place, verdict) => place && place.querySelector(`[data-verdict=${verdict}]`)?.click();
  const turn = (by) => change({page: state.page + by});
  const keys = {
    "/": () => find("search").focus(), "j": () => step([...document.querySelectorAll("article")], 1),
    "k": () => step([...document.querySelectorAll("article")], -1), "ArrowRight": () => row && step([...row.querySelectorAll(".cell")], 1),
    "ArrowLeft": () => row && step([...row.querySelectorAll(".cell")], -1), "m": () => press(cell, "match"),
    "n": () => press(cell, "negative"), "x": () => press(row, "drop"), "[": () => turn(-1), "]": () => turn(1),
  };
  if (!(event.key in keys)) return;
  event.preventDefault();
  keys[event.key]();
}

for (const button of document.querySelectorAll("[data-view]")) button.addEventListener("click", () => change({view: button.dataset.view}));
find("subset").addEventListener("change", (event) => change({subset: event.target.value}));
find("search").addEventListener("input", (event) => change({needle: event.target.value.trim().toLowerCase()}));
find("export").addEventListener("click", () => exportFile("overrides", overrides.json(), "mine select: overrides=FILE"));
find("import").addEventListener("change", importFile);
find("reset").addEventListener("click", () => {
  find("search").value = find("subset").value = "";
  change({view: "all", subset: "", needle: ""});
});
for (const pager of document.querySelectorAll(".pager")) {
  const [back, , next] = pager.children;
  for (const [button, by] of [[back, -1], [next, 1]]) {
    button.addEventListener("click", () => change({page: state.page + by}));
  }
}
document.addEventListener("keydown", onKey);
if (find("export-labels") !== null) {
  find("export-labels").addEventListener("click", () => exportFile("labels", labels.json(), "mine calibrate: labels=FILE"));
}
render();
showOverrides();
showLabels();
