"""What the ledger asks of the four databases; `{0}` stands for the one of a service."""

from .outcome import Outcome

OVERDUE = "payment overdue"
PATHS = {
    Outcome.SHIPPED: "OrderPlaced StockReserved PaymentCaptured ParcelShipped OrderShipped",
    Outcome.DECLINED: "OrderPlaced StockReserved PaymentDeclined StockReleased OrderCancelled",
    Outcome.OUT_OF_STOCK: "OrderPlaced OutOfStock OrderCancelled",
    Outcome.CARRIER_REFUSED: "OrderPlaced StockReserved PaymentCaptured CarrierRefused PaymentRefunded StockReleased"
    " OrderCancelled",
    "overdue, captured": "OrderPlaced StockReserved PaymentCaptured PaymentRefunded StockReleased OrderCancelled",
    "overdue, declined": "OrderPlaced StockReserved PaymentDeclined StockReleased OrderCancelled",
}
REASONS = {
    Outcome.DECLINED: "payment declined",
    Outcome.OUT_OF_STOCK: "out of stock",
    Outcome.CARRIER_REFUSED: "refused by the carrier",
    "overdue, captured": OVERDUE,
    "overdue, declined": OVERDUE,
}
WITH_CENTS = {"OrderPlaced", "PaymentCaptured", "PaymentRefunded"}
WITH_CDS = {"OrderPlaced", "StockReserved", "StockReleased", "ParcelShipped"}

TABLES = """
CREATE TABLE input (order_id INTEGER PRIMARY KEY, customer_id, date, cds, cents, outcome);
CREATE TABLE paths (path, type, cds, cents, reason);
CREATE TABLE routes (consumer, source, kind, category, type);
CREATE TABLE late (order_id INTEGER PRIMARY KEY);
CREATE TABLE facts (order_id, type, times, cds, cents, reason, PRIMARY KEY (order_id, type)) WITHOUT ROWID;
CREATE TABLE expected (order_id, type, times, cds, cents, reason, PRIMARY KEY (order_id, type)) WITHOUT ROWID;
CREATE TABLE logged (consumer, stream, version, PRIMARY KEY (consumer, stream, version)) WITHOUT ROWID;
CREATE TABLE kept (consumer, stream, version, PRIMARY KEY (consumer, stream, version)) WITHOUT ROWID;
CREATE TABLE taken (
    consumer, stream, version, sequence, PRIMARY KEY (consumer, stream, version, sequence)
) WITHOUT ROWID;
"""

FACTS = """
INSERT INTO facts
SELECT coalesce(data ->> 'order_id', stream), substr(type, instr(type, '.') + 1), count(*),
    sum(data ->> 'cds'), sum(data ->> 'cents'), max(data ->> 'reason')
FROM {0}.events WHERE kind = 'event' GROUP BY 1, 2
"""
LATE = f"""
INSERT INTO late
SELECT f.order_id FROM facts f
JOIN orders.events t ON t.stream = 'orders.fulfilment>orders/' || f.order_id
    AND t.kind = 'timer' AND t.type = 'orders.PaymentOverdue'
WHERE f.type = 'OrderCancelled' AND f.reason = '{OVERDUE}'
GROUP BY 1
"""
EXPECTED = """
INSERT INTO expected
SELECT i.order_id, p.type, 1, iif(p.cds, i.cds, NULL), iif(p.cents, i.cents, NULL), p.reason
FROM input i LEFT JOIN late USING (order_id)
JOIN paths p ON p.path = CASE WHEN late.order_id IS NULL THEN i.outcome
    WHEN i.outcome = 'declined' THEN 'overdue, declined' ELSE 'overdue, captured' END
"""
DIFFERENT = """
SELECT order_id, group_concat(what, ', ') FROM (
    SELECT order_id, 'should have ' || type || coalesce(' ' || e.cents || ' cents', '') || coalesce(': ' || e.reason, '') AS what
    FROM expected e LEFT JOIN facts f USING (order_id, type)
    WHERE (e.times, e.cds, e.cents, e.reason) IS NOT (f.times, f.cds, f.cents, f.reason)
    UNION ALL
    SELECT order_id, 'has ' || f.times || ' ' || type || coalesce(' ' || f.cents || ' cents', '') || coalesce(': ' || f.reason, '')
    FROM facts f LEFT JOIN expected e USING (order_id, type)
    WHERE (e.times, e.cds, e.cents, e.reason) IS NOT (f.times, f.cds, f.cents, f.reason)
) GROUP BY 1 ORDER BY 1
"""
PLACED = """
SELECT data ->> 'order_id', data ->> 'customer_id', data ->> 'date', data ->> 'cds', data ->> 'cents'
FROM orders.events WHERE type = 'orders.OrderPlaced'
"""
CUSTOMERS_WANTED = "SELECT customer_id, count(*), count(*), sum(cds), sum(cents) FROM input GROUP BY 1"
CUSTOMERS_FOUND = "SELECT customer_id, json_array_length(orders), count, cds, cents FROM orders.customers"
ORDERS_WANTED = "SELECT customer_id, order_id FROM input"
ORDERS_FOUND = "SELECT customer_id, value FROM orders.customers, json_each(orders)"

LOGGED = """
INSERT INTO logged
SELECT r.consumer, e.stream, e.version
FROM (SELECT stream, version, kind, type, substr(stream, 1, instr(stream, '/') - 1) AS category FROM {0}.events) e
CROSS JOIN routes r ON r.category = e.category AND r.kind = e.kind AND r.source = '{0}'
    AND (r.type IS NULL OR r.type = e.type)
ORDER BY 1, 2, 3
"""
TAKEN = "INSERT INTO taken SELECT consumer, stream, version, sequence FROM {0}.journal ORDER BY 1, 2, 3, 4"
KEPT = "INSERT INTO kept SELECT consumer, stream, version FROM {0}.held WHERE NOT raw"
LOST = """
SELECT consumer, stream, version FROM logged l WHERE NOT EXISTS
    (SELECT 1 FROM taken t WHERE (t.consumer, t.stream, t.version) = (l.consumer, l.stream, l.version))
AND NOT EXISTS
    (SELECT 1 FROM kept k WHERE (k.consumer, k.stream, k.version) = (l.consumer, l.stream, l.version))
"""
"""What a consumer has neither taken nor keeps for a retry or for a person."""
STRAY = "SELECT consumer, stream, version FROM taken EXCEPT SELECT consumer, stream, version FROM logged"
DOUBLED = "SELECT count(*) - (SELECT count(*) FROM (SELECT 1 FROM taken GROUP BY consumer, stream, version)) FROM taken"
OUT_OF_ORDER = """
SELECT count(*) FROM (
    SELECT sequence < lag(sequence) OVER (PARTITION BY consumer, stream ORDER BY version) AS earlier FROM taken
) WHERE earlier
"""
"""A later version of a stream was taken before an earlier one; a consumer has all of its journal in one database."""
SUM = "SELECT coalesce(sum({1}), 0) FROM facts WHERE type = '{0}'"
CANCELLED = "SELECT coalesce(sum(times), 0) FROM facts WHERE type = 'OrderCancelled' AND reason = ?"
SHIPPED_CENTS = "SELECT coalesce(sum(f.times * i.cents), 0) FROM facts f JOIN input i USING (order_id) WHERE f.type = 'ParcelShipped'"
HELD = "SELECT consumer, reason, count(*), min(stream), min(cause) FROM {0}.held GROUP BY 1, 2"
DEAD = "SELECT count(*) FROM {0}.held WHERE reason IN ('dead', 'uncertain')"
OPEN_SAGAS = "SELECT key FROM orders.sagas WHERE NOT ended ORDER BY CAST(key AS INTEGER)"
TIMERS = "SELECT owner || '/' || key FROM {0}.timers"

MISSING = """
ATTACH ':memory:' AS {0};
CREATE TABLE {0}.events (position, stream, version, kind, type, data);
CREATE TABLE {0}.journal (sequence, consumer, stream, version);
CREATE TABLE {0}.held (consumer, reason, stream, version, cause, raw);
CREATE TABLE {0}.timers (owner, key);
CREATE TABLE {0}.sagas (key, ended);
CREATE TABLE {0}.customers (customer_id, orders, count, cds, cents);
"""
"""In place of a database that was never made, or has no tables yet."""
