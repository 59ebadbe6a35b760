// Does one work over Emmett's PostgreSQL event store, as standard input asks in JSON, and answers in JSON.

import { readFileSync } from "node:fs";

import { line, orderId } from "./orders.mjs";
import { works } from "./works.mjs";

const asked = JSON.parse(readFileSync(0, "utf8"));
for (const [number, wanted] of asked.samples) {
  const made = JSON.stringify(line(orderId(number), number));
  if (made !== wanted) throw new Error(`the event is ${made}, where the others store ${wanted}`);
}
process.stdout.write(JSON.stringify(await works[asked.work](asked)));
