"""paho-mqtt as a program: subscribes or publishes, one line for each thing that happened.

  paho_client.py -h HOST -p PORT -i ID [-V 311|5] [--keep] sub FILTER COUNT
  paho_client.py -h HOST -p PORT -i ID [-V 311|5] [--keep] pub TOPIC PAYLOAD...
  paho_client.py -h HOST -p PORT -i ID [-V 31|311|5] [--ws] [--ca FILE] echo TOPIC PAYLOAD...

Prints `connected session_present=0|1`, then `message PAYLOAD` or `published`, at QoS 1 throughout. `echo`
subscribes at QoS 2, publishes to itself at QoS 0, 1 and 2 in turn and prints what comes.
`--keep` asks for a session that outlives the connection. With COUNT 0, `sub` only subscribes.
"""

import argparse
import sys
import threading

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

PATIENCE_S = 20


def main():
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("-h", dest="host")
    parser.add_argument("-p", dest="port", type=int)
    parser.add_argument("-i", dest="client_id")
    parser.add_argument("-V", dest="version", choices=["31", "311", "5"], default="5")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--ws", action="store_true")
    parser.add_argument("--ca")
    parser.add_argument("action", choices=["sub", "pub", "echo"])
    parser.add_argument("topic")
    parser.add_argument("rest", nargs="+")
    args = parser.parse_args()

    v5 = args.version == "5"
    client = mqtt.Client(
        mqtt.CallbackAPIVersion.VERSION2,
        client_id=args.client_id,
        protocol={"31": mqtt.MQTTv31, "311": mqtt.MQTTv311, "5": mqtt.MQTTv5}[args.version],
        clean_session=None if v5 else not args.keep,
        transport="websockets" if args.ws else "tcp",
    )
    if args.ws:
        client.ws_set_options(path="/mqtt")
    if args.ca:
        client.tls_set(ca_certs=args.ca)
    echo = args.action == "echo"
    done = threading.Event()
    wanted = int(args.rest[0]) if args.action == "sub" else len(args.rest)
    seen = []

    def on_connect(client, _userdata, flags, reason, _properties):
        if reason.is_failure:
            print("refused", reason.value, flush=True)
            sys.exit(3)
        print(f"connected session_present={int(flags.session_present)}", flush=True)
        if args.action == "pub":
            for payload in args.rest:
                client.publish(args.topic, payload, qos=1)
        elif not flags.session_present:
            client.subscribe(args.topic, qos=2 if echo else 1)
        elif wanted == 0:
            done.set()

    def on_subscribe(_client, _userdata, _mid, reasons, _properties):
        print("subscribed", reasons[0].value, flush=True)
        if echo:
            for number, payload in enumerate(args.rest):
                client.publish(args.topic, payload, qos=number % 3)
        if wanted == 0:
            done.set()

    def count(line):
        print(line, flush=True)
        seen.append(line)
        if len(seen) == wanted:
            done.set()

    client.on_connect = on_connect
    client.on_subscribe = on_subscribe
    client.on_message = lambda _c, _u, message: count(f"message {message.payload.decode()}")
    if not echo:
        client.on_publish = lambda _c, _u, _mid, reason, _p: count(f"published {reason.value if v5 else 0}")

    if v5:
        properties = Properties(PacketTypes.CONNECT)
        properties.SessionExpiryInterval = 3600 if args.keep else 0
        client.connect(args.host, args.port, clean_start=not args.keep, properties=properties)
    else:
        client.connect(args.host, args.port)
    client.loop_start()
    complete = done.wait(PATIENCE_S)
    client.disconnect()
    client.loop_stop()
    sys.exit(0 if complete else 4)


main()
