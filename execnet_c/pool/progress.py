"""The bar of a stream with `progress=True`: tqdm's, in a notebook its notebook form."""


class Bar:
    def __init__(self, total):
        try:
            from tqdm.auto import tqdm
        except ImportError:
            raise ImportError("progress=True needs tqdm: pip install 'execnet_c[pool]'") from None
        self._bar = tqdm(total=total, unit="item")

    def update(self, number, workers):
        alive = sum(worker.channel is not None for worker in workers)
        flying = sum(len(batch.items) for worker in workers for batch in list(worker.has))
        self._bar.set_postfix(workers=alive, in_flight=flying, refresh=False)
        self._bar.update(number)

    def close(self):
        self._bar.close()
