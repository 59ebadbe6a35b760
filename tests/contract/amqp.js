// A service in another language: it reads a topic, and states an event of its own, by what the reference says of the wire.
//
//     node amqp.js URL read TOPIC COUNT      a JSON line for each message, and "ready" once it listens
//     node amqp.js URL state TOPIC           the events of its standard input, a JSON line each: {attributes, data}

const amqp = require("amqplib");
const readline = require("node:readline");

async function read(channel, topic, count) {
  const { queue } = await channel.assertQueue("", { exclusive: true });
  await channel.bindQueue(queue, topic, "");
  let left = Number(count);
  await new Promise((done) => {
    channel.consume(queue, (message) => {
      const { headers, contentType } = message.properties;
      console.log(JSON.stringify({ headers, contentType, data: JSON.parse(message.content) }));
      channel.ack(message);
      if (--left === 0) done();
    }).then(() => console.log("ready"));
  });
}

async function state(channel, topic) {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const { attributes, data } = JSON.parse(line);
    const { datacontenttype, ...others } = attributes;
    const headers = Object.fromEntries(Object.entries(others).map(([name, value]) => [`cloudEvents:${name}`, value]));
    channel.publish(topic, "", Buffer.from(JSON.stringify(data)), { headers, contentType: datacontenttype, persistent: true });
  }
  await channel.waitForConfirms();
}

async function main([url, what, ...rest]) {
  const connection = await amqp.connect(url);
  const channel = await connection.createConfirmChannel();
  await { read, state }[what](channel, ...rest);
  await channel.close();
  await connection.close();
}

main(process.argv.slice(2)).catch((error) => {
  console.error(error);
  process.exit(1);
});
