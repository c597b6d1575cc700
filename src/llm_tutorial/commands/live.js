// A form under lesson 1's first playground: the masked model, read by onnxruntime-web in the reader's browser.
// Everything is fetched from a folder beside the page, and only after the first click.
(() => {
  const FOLDER = new URL("_static/live/", document.baseURI);
  const SHOWN = 5;
  const IDEOGRAPHS =
    /[\u4e00-\u9fff\u3400-\u4dbf\uf900-\ufaff\u{20000}-\u{2a6df}\u{2a700}-\u{2ceaf}\u{2f800}-\u{2fa1f}]/gu;
  const place = document.querySelector(".live-model");

  place.innerHTML = `
    <style>
      .live-model { border: 1px solid var(--pst-color-border); border-radius: .4rem;
        padding: .8rem 1rem; margin: 1rem 0; }
      .live-model form { display: flex; flex-wrap: wrap; gap: .5rem; align-items: end; margin: .5rem 0; }
      .live-model label { flex: 1 1 16rem; margin: 0; }
      .live-model input { width: 100%; }
      .live-model input, .live-model button { padding: .3rem .6rem; border-radius: .25rem; font: inherit;
        border: 1px solid var(--pst-color-text-muted); color: var(--pst-color-text-base);
        background: var(--pst-color-surface); }
      .live-model button[aria-disabled=true] { opacity: .6; }
      .live-model progress { width: 100%; }
      .live-model p { margin: .3rem 0; }
      .live-model table { width: 100%; margin: .5rem 0; border-collapse: collapse; }
      .live-model caption { caption-side: top; text-align: left; color: var(--pst-color-text-base); }
      .live-model tbody th { font-weight: normal; text-align: right; width: 1%; padding-right: .6rem; }
      .live-model td { display: flex; gap: .5rem; align-items: center; border: 0; }
      .live-model .bar { background: var(--pst-color-primary); height: 1em; min-width: 1px; }
    </style>
    <p><strong>Try it on this page.</strong> The small model that comes with this tutorial runs in your browser.
      The first click loads it, ${place.dataset.megabytes} MB. What you type stays on your computer.</p>
    <form><label>Sentence with a [MASK] in it
      <input name="sentence" autocomplete="off" spellcheck="false"></label><button>Fill the mask</button></form>
    <progress aria-label="Loading the model" hidden></progress>
    <p role="status"></p><div class="found"></div>`;
  const [form, progress, status, found] = ["form", "progress", "[role=status]", ".found"].map(
    name => place.querySelector(name));
  const [field, button] = form.elements;
  field.value = place.dataset.sentence;

  let loading = null;  // a promise of the model
  let busy = false;
  form.addEventListener("submit", async event => {
    event.preventDefault();
    if (busy) return;
    busy = true;
    button.setAttribute("aria-disabled", "true");  // it keeps the focus
    try {
      if (!field.value.includes("[MASK]"))
        throw new Error("There is no [MASK] in the sentence: put one where a word is to be predicted.");
      loading ??= load();
      const model = await loading;
      found.replaceChildren(...(await predictions(model, field.value)).map(table));
      const names = [...found.querySelectorAll("tbody tr:first-child th")].map(cell => cell.textContent);
      status.textContent = `Most probable: ${names.join(", ")}.`;
    } catch (error) {
      found.replaceChildren();
      status.textContent = error.message;
    }
    busy = false;
    button.removeAttribute("aria-disabled");
  });

  async function load() {
    try {
      if (location.protocol === "file:")
        throw new Error("a page opened from a disk may not read the files beside it. Serve the folder with " +
          "python -m http.server, and open http://localhost:8000");
      progress.hidden = false;
      status.textContent = "Loading the model";
      const [ort, wasm, graph, planes, vocabulary] = await Promise.all([import(new URL("ort.mjs", FOLDER)),
        ...["runtime.bin", "graph.bin", "weights.bin", "vocab.bin"].map(inflated)]);
      status.textContent = "Starting the model";
      await new Promise(resolve => setTimeout(resolve, 50));  // the browser draws this line
      Object.assign(ort.env.wasm, { wasmBinary: wasm.buffer, numThreads: 1 });
      const session = await ort.InferenceSession.create(graph, {
        executionProviders: ["wasm"], externalData: [{ path: "model.onnx.data", data: joined(planes) }] });
      const tokens = new TextDecoder().decode(vocabulary).trimEnd().split("\n");
      return { ort, session, tokens, ids: new Map(tokens.map((token, id) => [token, id])) };
    } catch (error) {
      loading = null;  // the next click tries again
      throw new Error(`The model could not be loaded: ${error.message}`);
    } finally {
      progress.hidden = true;
    }
  }

  async function inflated(name) {
    const response = await fetch(new URL(name, FOLDER));
    if (!response.ok) throw new Error(`${name}: ${response.status} ${response.statusText}`);
    const stream = response.body.pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // The file holds the first byte of every 32-bit number, then the second byte of each, the third and the fourth.
  function joined(planes) {
    const count = planes.length / 4;
    const numbers = new Uint32Array(count);
    for (let index = 0; index < count; index++)
      numbers[index] = planes[index] | planes[count + index] << 8 | planes[2 * count + index] << 16
        | planes[3 * count + index] << 24;
    return new Uint8Array(numbers.buffer);
  }

  // WordPiece without case and accents, as transformers.BertTokenizer does it.
  function tokenized(text, ids) {
    return ["[CLS]", ...text.split(/(\[(?:UNK|SEP|PAD|CLS|MASK)\])/).flatMap((part, index) =>
      index % 2 ? [part] : words(part).flatMap(word => pieces(word, ids))), "[SEP]"];
  }

  function words(text) {
    return text.replace(/[\t\n\r]/g, " ").replace(/[\p{Cc}\p{Cf}\p{Cn}\p{Co}\ufffd]/gu, "")
      .replace(IDEOGRAPHS, " $& ")
      .normalize("NFD").replace(/\p{Mn}/gu, "").toLowerCase()
      .replace(/[!-/:-@[-`{-~]|\p{P}/gu, " $& ").split(/\s+/).filter(Boolean);
  }

  function pieces(word, ids) {
    const letters = [...word];
    const found = [];
    for (let start = 0; start < letters.length;) {
      let end = letters.length > 100 ? start : letters.length;
      const name = () => (start ? "##" : "") + letters.slice(start, end).join("");
      while (end > start && !ids.has(name())) end--;
      if (end === start) return ["[UNK]"];
      found.push(name());
      start = end;
    }
    return found;
  }

  async function predictions({ ort, session, tokens, ids }, text) {
    const names = tokenized(text, ids);
    if (names.length > 512) throw new Error(`The text has ${names.length} tokens, but the model reads at most 512.`);
    const masks = names.flatMap((name, index) => name === "[MASK]" ? [index] : []);
    const integers = (values, shape) => new ort.Tensor("int64", BigInt64Array.from(values, BigInt), shape);
    const { logits } = await session.run({
      input_ids: integers(names.map(name => ids.get(name)), [1, names.length]),
      positions: integers(masks, [masks.length]) });
    return masks.map((_, row) => {
      const scores = logits.data.subarray(row * tokens.length, (row + 1) * tokens.length);
      const best = scores.reduce((first, second) => Math.max(first, second), -Infinity);
      const sum = scores.reduce((total, score) => total + Math.exp(score - best), 0);
      return [...scores.keys()].sort((first, second) => scores[second] - scores[first]).slice(0, SHOWN)
        .map(id => ({ token: tokens[id], probability: Math.exp(scores[id] - best) / sum }));
    });
  }

  function table(rows, index, all) {
    const element = document.createElement("table");
    element.createCaption().textContent = all.length > 1 ? `Mask ${index + 1} of ${all.length}` : "At the mask";
    element.createTHead().innerHTML =
      `<tr class="visually-hidden"><th scope="col">Token</th><th scope="col">Probability</th></tr>`;
    const body = element.createTBody();
    for (const { token, probability } of rows) {
      const row = body.insertRow();
      const head = row.appendChild(document.createElement("th"));
      head.scope = "row";
      head.textContent = token;
      const cell = row.insertCell();
      cell.innerHTML = `<span class="bar" aria-hidden="true" style="width: ${80 * probability}%"></span>`;
      cell.append(`${(100 * probability).toFixed(1)} %`);
    }
    return element;
  }
})();
