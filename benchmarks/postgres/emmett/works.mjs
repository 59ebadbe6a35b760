// What Emmett is asked to do, through its own API: its event store, its `CommandHandler`, its consumer.

import { rawSql, sql } from "@event-driven-io/dumbo";
import { CommandHandler, isExpectedVersionConflictError, STREAM_DOES_NOT_EXIST } from "@event-driven-io/emmett";
import { getPostgreSQLEventStore, postgreSQLRawSQLProjection } from "@event-driven-io/emmett-postgresql";
import pg from "pg";

import { closedLoops } from "./load.mjs";
import { decide, evolve, initialState, line, order, orderId, placed, streamOf } from "./orders.mjs";

/** Use a store over a pool of so many connections, its tables made. */
async function withStore({ url, writers }, use, settings = {}) {
  const pool = new pg.Pool({ connectionString: url, max: writers, ...settings });
  const store = getPostgreSQLEventStore(url, { connectionOptions: { pool } });
  try {
    await store.schema.migrate();
    return await use(store, pool);
  } finally {
    await store.close();
    await pool.end();
  }
}

const appendNew = (store, number, events) =>
  store.appendToStream(streamOf(number), events, { expectedStreamVersion: STREAM_DOES_NOT_EXIST });

/** The answer to a statement on a connection as the store's are, after `commits` new streams, one by one. */
const durability = (asked) =>
  withStore(asked, async (store, pool) => {
    const { rows } = await pool.query({ text: asked.statement, rowMode: "array" });
    for (let number = 0; number < asked.commits; number += 1) {
      await appendNew(store, number, order(number, 1));
    }
    return { settings: rows[0] };
  });

/** New streams with one event. */
const append = (asked) =>
  withStore(asked, (store) => {
    const event = placed(line(orderId(0), 1));
    let number = 0;
    return closedLoops(asked, () => appendNew(store, number++, [event]));
  });

/** A command on each of `orders` orders in turn, the first of which is `first`; again after a conflict. */
const command = (asked) =>
  withStore(asked, async (store) => {
    const handle = CommandHandler({ evolve, initialState, mapToStreamId: streamOf });
    let place = 0;
    let conflicts = 0;

    const send = async () => {
      const number = asked.first + (place++ % asked.orders);
      const added = line(orderId(number), number);
      for (;;) {
        try {
          return await handle(store, number, () => decide(added));
        } catch (error) {
          if (!isExpectedVersionConflictError(error)) throw error;
          conflicts += 1;
        }
      }
    };

    const done = await closedLoops(asked, send);
    return { ...done, conflicts };
  });

/** Orders of so many events, one by one, so that positions stand in the order of transactions. */
const fill = (asked) =>
  withStore(
    asked,
    async (store) => {
      for (let number = 0; number < asked.orders; number += 1) {
        await appendNew(store, number, order(number, asked.events));
      }
      return {};
    },
    { options: "-c synchronous_commit=off" }, // a log is only filled: nothing is measured
  );

const totals = postgreSQLRawSQLProjection({
  name: "totals",
  canHandle: ["Placed", "LineAdded"],
  init: () => rawSql("CREATE TABLE IF NOT EXISTS totals (order_id text PRIMARY KEY, cents bigint NOT NULL)"),
  evolve: ({ data }) =>
    sql(
      `INSERT INTO totals AS t VALUES (%L, %s)
       ON CONFLICT (order_id) DO UPDATE SET cents = t.cents + excluded.cents`,
      data.order_id,
      data.cents,
    ),
});

/** A projection over the first `events` of the log, in batches of `batch`, with no rest between them. */
const catchUp = (asked) =>
  withStore(asked, async (store) => {
    let done = 0;
    const consumer = store.consumer({ pulling: { batchSize: asked.batch, pullingFrequencyInMs: 0 } });
    consumer.projector({ projection: totals, stopAfter: () => ++done === asked.events });
    const begun = performance.now();
    await consumer.start();
    const seconds = (performance.now() - begun) / 1e3;
    await consumer.close();
    return { done, seconds };
  });

export const works = { append, catchUp, command, durability, fill };
