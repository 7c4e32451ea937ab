// Overrides by a person. The browser stores the overrides by corpus, and the person exports and imports them as the file
// that miner/selection/overrides.py reads.
"use strict";

class Overrides {
  constructor(corpus, given, changed, recalled) { // given: the overrides with which the page was made
    this.corpus = corpus;
    this.given = new Map(given.map((override) => [Overrides.key(override.query_id, override.item_id), override]));
    this.place = `unijudge.overrides.${corpus}`;
    this.changed = changed;
    this.said = new Map();
    this.kept = true;
    this.recall();
    window.addEventListener("storage", (event) => { // another window of this browser changed the overrides
      if (event.key === this.place && this.recall()) { changed(); recalled(); }
    });
  }

  static key(query, item) { return JSON.stringify([query, item]); }

  recall() { // overrides in the browser's storage take precedence over the overrides of the page
    this.said = new Map(this.given);
    try {
      const text = localStorage.getItem(this.place);
      if (text) {
        const here = this.parse(text);
        for (const key of JSON.parse(text).taken_back || []) this.said.delete(key);
        for (const [key, override] of here) this.said.set(key, override);
      }
    } catch (error) { this.kept = false; }
    return this.kept;
  }

  isNew(query, item) { // returns whether a decision differs from the page, which does not show its effect yet
    const now = this.get(query, item), then = this.given.get(Overrides.key(query, item));
    return (now && now.verdict) !== (then && then.verdict);
  }

  get(query, item) { return this.said.get(Overrides.key(query, item)); }

  get rows() { return new Set([...this.said.values()].map((override) => override.query_id)); }

  toggle(query, item, verdict) { // sets an override, or removes the override if its verdict is the same
    const key = Overrides.key(query, item), before = this.said.get(key);
    if (before && before.verdict === verdict) this.said.delete(key);
    else this.said.set(key, {query_id: query, item_id: item, verdict, note: before ? before.note : ""});
    this.save();
  }

  note(query, item, note) {
    const key = Overrides.key(query, item);
    if (this.said.has(key)) this.said.set(key, {...this.said.get(key), note});
    this.save();
  }

  save() {
    const taken_back = [...this.given.keys()].filter((key) => !this.said.has(key));
    try { localStorage.setItem(this.place, JSON.stringify({...this.file(), taken_back})); } catch (error) { this.kept = false; }
    this.changed();
  }

  file() { return {version: 1, corpus: this.corpus, overrides: [...this.said.values()]}; }

  json() { return JSON.stringify(this.file(), null, 2) + "\n"; }

  add(text) { // adds the overrides of a file, which take precedence over earlier overrides
    const read = this.parse(text);
    for (const [key, override] of read) this.said.set(key, override);
    this.save();
    return read.size;
  }

  parse(text) {
    let file;
    try { file = JSON.parse(text); } catch (error) { throw new Error("the file is not a JSON file"); }
    if (!file || file.version !== 1 || !Array.isArray(file.overrides)) throw new Error("the file is not a file of overrides, version 1");
    if (file.corpus !== this.corpus) throw new Error("the file was made for another corpus");
    const read = new Map();
    for (const {query_id, item_id, verdict, note = ""} of file.overrides) {
      const fits = typeof query_id === "string" && typeof note === "string" &&
        (item_id === null ? verdict === "drop" : typeof item_id === "string" && ["match", "negative"].includes(verdict));
      if (!fits) throw new Error(`the file has an invalid override: ${JSON.stringify({query_id, item_id, verdict})}`);
      const key = Overrides.key(query_id, item_id), before = read.get(key);
      if (before && before.verdict !== verdict) throw new Error(`the file has two different verdicts about item ${item_id} of query ${query_id}`);
      read.set(key, {query_id, item_id, verdict, note});
    }
    return read;
  }
}
