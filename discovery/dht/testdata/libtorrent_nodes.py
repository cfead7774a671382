# A DHT of libtorrent sessions on loopback addresses.
#   libtorrent_nodes.py COUNT   prints "ready IP:PORT..." once all know one another, then obeys lines on standard input:
#     get KEY SALT              prints "item SEQ VALUE", the value of the best answer, or "none"
#     put PRIVATE KEY SALT V    prints "put COUNT"
# Keys, salts and values are in hexadecimal. It ends with its input.
import sys
import time

import libtorrent as lt

count = int(sys.argv[1])
addresses = ["127.8.1.%d" % (i + 1) for i in range(count)]
port = 26881
settings = {
    "alert_mask": lt.alert.category_t.dht_notification | lt.alert.category_t.error_notification,
    "enable_dht": True, "enable_lsd": False, "enable_upnp": False, "enable_natpmp": False,
    "enable_incoming_tcp": False, "enable_outgoing_tcp": False,
    "dht_bootstrap_nodes": "", "dht_restrict_routing_ips": False, "dht_restrict_search_ips": False,
    "dht_prefer_verified_node_ids": False, "dht_ignore_dark_internet": False, "dht_enforce_node_id": False,
    "dht_privacy_lookups": False, "dht_block_ratelimit": 1000, "dht_upload_rate_limit": 1000000,
}
sessions = [lt.session(dict(settings, listen_interfaces="%s:%d" % (a, port))) for a in addresses]


def wait_for(session, kind, limit):
    end = time.time() + limit
    while time.time() < end:
        session.wait_for_alert(100)
        for alert in session.pop_alerts():
            if isinstance(alert, kind):
                return alert
    return None


def item_of(alert):
    try:
        return alert.item
    except RuntimeError:  # there is none
        return None


def ready():
    for session in sessions:
        for a in addresses:
            session.add_dht_node((a, port))
    time.sleep(0.3)
    return all(s.status().dht_nodes >= count // 2 for s in sessions)


end = time.time() + 30
while not ready():
    if time.time() > end:
        sys.exit("the nodes do not know one another: %s" % [s.status().dht_nodes for s in sessions])
print("ready " + " ".join("%s:%d" % (a, port) for a in addresses), flush=True)

for line in sys.stdin:
    word, *args = line.split()
    args = [bytes.fromhex(a) for a in args]
    session = sessions[-1]
    session.pop_alerts()
    if word == "get":
        session.dht_get_mutable_item(args[0], args[1])
        best = None
        while True:
            alert = wait_for(session, lt.dht_mutable_item_alert, 5)
            if alert is None:
                break
            item = item_of(alert)
            if item is not None and (best is None or item["seq"] >= best["seq"]):
                best = item
            if alert.authoritative:
                break
        if best is None or not isinstance(best["value"], bytes):
            print("none", flush=True)
        else:
            print("item %d %s" % (best["seq"], best["value"].hex()), flush=True)
    elif word == "put":
        session.dht_put_mutable_item(args[0], args[1], args[3], args[2])
        alert = wait_for(session, lt.dht_put_alert, 40)
        print("put %d" % (alert.num_success if alert else 0), flush=True)
