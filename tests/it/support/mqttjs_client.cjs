// mqtt.js as a program: subscribes, publishes to itself at QoS 0, 1 and 2, one line for each thing that happened.
//
//   mqttjs_client.cjs -u URL [--ca FILE] -i ID -V 31|311|5 echo TOPIC PAYLOAD...

"use strict";

const fs = require("node:fs");
const path = require("node:path");
const mqtt = require(path.join(process.env.MQTT_JS, "node_modules", "mqtt"));

const PATIENCE_MS = 20_000;

const options = {};
const rest = [];
for (let at = 2; at < process.argv.length; at += 1) {
  const argument = process.argv[at];
  if (argument.startsWith("-")) {
    options[argument.replace(/^-+/, "")] = process.argv[(at += 1)];
  } else {
    rest.push(argument);
  }
}
const [, topic, ...payloads] = rest;
const version = { 31: 3, 311: 4, 5: 5 }[options.V];
const client = mqtt.connect(options.u, {
  clientId: options.i,
  clean: true,
  protocolId: version === 3 ? "MQIsdp" : "MQTT",
  protocolVersion: version,
  reconnectPeriod: 0,
  ca: options.ca ? [fs.readFileSync(options.ca)] : undefined,
});

function fail(why) {
  console.log("failed", why);
  process.exit(4);
}

setTimeout(() => fail("nothing more comes"), PATIENCE_MS).unref();
client.on("error", (error) => fail(error.message));
client.on("connect", (connack) => {
  console.log(`connected session_present=${connack.sessionPresent ? 1 : 0}`);
  client.subscribe(topic, { qos: 2 }, (error, granted) => {
    if (error) fail(error.message);
    console.log("subscribed", granted[0].qos);
    payloads.forEach((payload, n) => client.publish(topic, payload, { qos: n % 3 }));
  });
});
let seen = 0;
client.on("message", (_topic, payload) => {
  console.log("message", payload.toString());
  seen += 1;
  if (seen === payloads.length) client.end(false, {}, () => process.exit(0));
});
