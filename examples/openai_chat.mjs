// The npm package `openai` against a gateway, unchanged.
//   node examples/openai_chat.mjs http://127.0.0.1:8088/v1 "What is gold?"
import OpenAI from "openai";

const [url, question, apiKey = "none"] = process.argv.slice(2);
const client = new OpenAI({ baseURL: url, apiKey, timeout: 600_000 });
const { data: models } = await client.models.list();
const messages = [{ role: "user", content: question }];

const stream = await client.chat.completions.create({
  model: models[0].id,
  messages,
  max_tokens: 8,
  stream: true,
  stream_options: { include_usage: true },
});
let text = "";
let last;
for await (const chunk of stream) {
  text += chunk.choices[0]?.delta?.content ?? "";
  last = chunk;
}

const { data: whole, response } = await client.chat.completions
  .create({ model: models[0].id, messages, max_tokens: 8 })
  .withResponse();

let refusal;
try {
  await client.chat.completions.create({ model: models[0].id, messages, n: 2 });
} catch (error) {
  refusal = { kind: error.constructor.name, code: error.code, param: error.param };
}

console.log(
  JSON.stringify({
    streamed: { text, usage: last.usage, assay: last.assay },
    whole: { text: whole.choices[0].message.content, job: response.headers.get("x-assay-job") },
    refusal,
  }),
);
