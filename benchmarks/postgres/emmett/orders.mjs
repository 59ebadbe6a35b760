// The orders of all works, as `benchmarks/sample.py` makes them, and their decider.

const NOTE = "leave it with the neighbour in flat 12 if nobody answers the door";

export const orderId = (number) => `0192f3a1-0000-7000-8000-${number.toString(16).padStart(12, "0")}`;

export const streamOf = (number) => `Order-${orderId(number)}`;

/** The fields of the event with this number of an order. */
export const line = (order, number) => ({
  order_id: order,
  customer_id: `C${String(number % 100_000).padStart(6, "0")}`,
  sku: "CD-0000417",
  quantity: 1 + (number % 3),
  cents: 1_499,
  note: NOTE,
});

export const placed = (data) => ({ type: "Placed", data });

const lineAdded = (data) => ({ type: "LineAdded", data });

/** An order as its events. */
export const order = (number, events) =>
  Array.from({ length: events }, (_, place) => (place ? lineAdded : placed)(line(orderId(number), place + 1)));

export const initialState = () => ({ lines: 0, cents: 0 });

export const decide = (command) => lineAdded(command);

export const evolve = (state, { type, data }) => {
  switch (type) {
    case "Placed":
    case "LineAdded":
      return { lines: state.lines + 1, cents: state.cents + data.cents };
    default:
      return state;
  }
};
