"""The shop: four services, each its own process with its own database, joined only by a channel.

    orders ── ReserveStock ──▶ inventory ── StockReserved · OutOfStock ──────▶ orders
           ── TakePayment ───▶ payments  ── PaymentCaptured · PaymentDeclined ▶
           ── ShipOrder ─────▶ shipping  ── ParcelShipped · CarrierRefused ──▶

The example itself: `messages`, then `orders` (with the saga that joins the services), `inventory`, `payments`, `shipping`;
`outcome` decides what becomes of an order, `settings` reads the environment.

What runs it, and what checks it from outside: `demo` begins and reports, `driver` feeds (`lines`, `feeder`), kills and
restarts (`services`, `service`) and watches (`progress`, `view`, `live`); `ledger` (`ledger_sql`, `routes`) has the last word.
"""
