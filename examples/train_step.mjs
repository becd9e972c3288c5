// Trains the graph of a step in JavaScript: `node train_step.mjs FOLDER ROWS STEPS RATE [onnxruntime-web]`.
// Folder, rows and result are those of train_step.py.
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
const [folder, data, steps, rate, runtime = 'onnxruntime-node'] = process.argv.slice(2);
const ort = await import(runtime);
const rows = readFileSync(data, 'utf8').trim().split('\n').map((line) => JSON.parse(line).input_ids);
const { inputs, loss: names, optimizer, state, length, outputs } = JSON.parse(readFileSync(`${folder}/manifest.json`));
const weights = readdirSync(folder).filter((name) => !/\.json$|\.safetensors$|^model\.onnx$|^theta/.test(name));
const externalData = weights.map((path) => ({ path, data: readFileSync(`${folder}/${path}`) }));
const session = await ort.InferenceSession.create(`${folder}/model.onnx`, runtime.endsWith('web') ? { externalData } : {});
const arrays = { int64: BigInt64Array, int32: Int32Array, float32: Float32Array, bool: Uint8Array };
const tensor = (type, values, shape) => new ort.Tensor(type, arrays[type].from(values, type === 'int64' ? BigInt : Number), shape);
const number = (value) => tensor('float32', [value], []);
const vectors = state.map(() => new ort.Tensor('float32', new Float32Array(length), [length]));
vectors[0].data.set(new Float32Array(new Uint8Array(readFileSync(`${folder}/theta.f32`)).buffer));

function feeds(batch) {
  const longest = Math.max(...batch.map((row) => row.length));
  const padded = (value) => batch.flatMap((row) => Array.from({ length: longest }, (_, at) => value(row, at)));
  const tokens = padded((row, at) => row[at] ?? 0);
  const known = { token_ids: tokens, attention_mask: padded((row, at) => Number(at < row.length)), positions: padded((_, at) => at) };
  const fed = {};
  for (const { name, type, from, shape } of inputs) {
    const sizes = shape.length ? shape.map((size) => (size === 'batch' ? batch.length : size)) : [batch.length, longest];
    fed[name] = tensor(type, known[from] ?? new Array(sizes.reduce((a, b) => a * b)).fill(0), sizes);
  }
  const predicting = tokens.map((_, at) => at).filter((at) => at % longest < batch[Math.floor(at / longest)].length - 1);
  fed[names.rows] = tensor('int64', predicting, [predicting.length]);
  fed[names.targets] = tensor('int64', predicting.map((at) => tokens[at + 1]), [predicting.length]);
  return { ...fed, [names.weight]: number(1 / predicting.length), [optimizer.rate]: number(Number(rate)) };
}

for (let step = 0; step < Number(steps); step += 1) {
  const fed = feeds(rows.slice((step * 4) % rows.length).slice(0, 4));
  for (const n of [1, 2]) fed[optimizer[`bias${n}`]] = number(1 - optimizer[`beta${n}`] ** (step + 1));
  const results = await session.run({ ...fed, ...Object.fromEntries(state.map(({ input }, at) => [input, vectors[at]])) });
  state.forEach(({ output }, at) => (vectors[at] = results[output]));
  console.log(step + 1, results[outputs.loss].data[0]);
}
writeFileSync(`${folder}/theta.f32`, Buffer.from(vectors[0].data.buffer, vectors[0].data.byteOffset, 4 * length));
