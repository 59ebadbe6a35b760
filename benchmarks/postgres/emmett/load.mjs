// Closed loops of writers: each sends its next operation when the last one is answered. As `benchmarks/load.py` counts.

const now = () => performance.now() / 1e3;

/** What was counted after `warm` seconds: the seconds it took, milliseconds of each operation, microseconds of our CPU. */
export async function closedLoops({ writers, seconds, warm }, operation) {
  const begun = now() + warm;
  const took = [];
  let all = 0;
  let last = begun;

  const write = async () => {
    for (let started = now(); started < begun + seconds; started = now()) {
      await operation();
      const ended = now();
      all += 1;
      if (started >= begun) {
        took.push((ended - started) * 1e3);
        last = Math.max(last, ended);
      }
    }
  };

  const running = Promise.all(Array.from({ length: writers }, write));
  const measured = new Promise((warmedUp) => setTimeout(() => warmedUp(process.cpuUsage()), warm * 1e3));
  const [before] = await Promise.all([measured, running]);
  const { user, system } = process.cpuUsage(before);
  return { all, took, seconds: last - begun, cpu: user + system };
}
