// Labels of a random sample of pairs. The browser stores the labels by sample, and the person exports them as the file
// that miner/inspection/labels.py reads.
"use strict";

class Labels {
  constructor(corpus, sample) {
    this.corpus = corpus;
    this.sample = sample;
    this.place = `unijudge.labels.${corpus}.${sample.judge}.${sample.seed}.${sample.digest}`;
    this.said = new Map();
    try { this.said = new Map(JSON.parse(localStorage.getItem(this.place) || "[]")); } catch (error) { /* this browser stores no labels */ }
  }

  static key(query, item) { return JSON.stringify([query, item]); }

  get(query, item) { return this.said.get(Labels.key(query, item)); }

  toggle(query, item, match) { // sets a label, or removes the label if it is the same
    const key = Labels.key(query, item);
    if (this.said.get(key) === match) this.said.delete(key);
    else this.said.set(key, match);
    try { localStorage.setItem(this.place, JSON.stringify([...this.said])); } catch (error) { /* this browser stores no labels: the person can still export them */ }
  }

  json() {
    const labels = [...this.said].map(([key, match]) => ({query_id: JSON.parse(key)[0], item_id: JSON.parse(key)[1], match}));
    const {judge, seed, pairs} = this.sample;
    return JSON.stringify({version: 1, corpus: this.corpus, judge, seed, sampled: pairs.length, labels}, null, 2) + "\n";
  }
}

function drawPair([queryId, subset, asks, item]) { // hides the judge's score, because the score would influence the person
  const [id, text, picture] = data.items[item];
  const [askedThumb, askedGone] = drawPicture(asks[1], queryId), [thumb, gone] = drawPicture(picture, id);
  const place = element("div", {class: "decide"});
  const update = () => place.replaceChildren(...[[true, "match"], [false, "negative"]].map(([match, verdict]) => element("button", {
    type: "button", "data-verdict": verdict, "aria-pressed": String(labels.get(queryId, id) === match),
    onclick: () => { labels.toggle(queryId, id, match); update(); showLabels(); place.querySelector(`[data-verdict=${verdict}]`).focus(); },
  }, match ? "match" : "no match")));
  update();
  return element("article", {tabindex: "0", "aria-label": `pair ${queryId}`},
    element("header", {}, element("div", {}, element("span", {class: "subset"}, subset), element("code", {}, queryId))),
    element("div", {class: "cells asked"},
      element("section", {class: "cell query", tabindex: "-1", "aria-label": "the query"}, ...[askedThumb].filter(Boolean),
        element("div", {class: "said"}, element("b", {class: "fate"}, "query"), askedGone, drawText(textOf(asks[0])))),
      element("section", {class: "cell", tabindex: "-1", "aria-label": `does this item answer the query? ${id}`}, ...[thumb].filter(Boolean),
        element("div", {class: "said"}, element("b", {}, "does this item answer the query?"), gone, drawText(textOf(text)),
          element("div", {class: "foot"}, place, element("code", {title: id}, id))))));
}

function showLabels() {
  const button = find("export-labels");
  if (button === null) return;
  button.textContent = `export ${labels.said.size} of ${data.sample.pairs.length} labels`;
  button.disabled = labels.said.size === 0;
}

function exportFile(name, text, told) {
  const url = URL.createObjectURL(new Blob([text], {type: "application/json"}));
  element("a", {href: url, download: `${name}-${data.corpus.slice(0, 12)}.json`}).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  find("told").textContent = `Exported. Give the file to ${told}`;
}
