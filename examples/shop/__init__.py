"""The shop: four services, each its own process with its own database, joined only by a channel.

    orders ── ReserveStock ──▶ inventory ── StockReserved · OutOfStock ──────▶ orders
           ── TakePayment ───▶ payments  ── PaymentCaptured · PaymentDeclined ▶
           ── ShipOrder ─────▶ shipping  ── ParcelShipped · CarrierRefused ──▶

The example itself: `messages`, then `orders` (with the saga that joins the services), `inventory`, `payments`, `shipping`;
`outcome` decides what becomes of an order, `settings` reads the environment.
What runs and checks it: `demo` and `driver` with `lines`, `feeder`, `services`, `progress`, `view`, and `ledger`.
"""
