"""Queues of Python over one Redis, each as its documentation begins: workers on both processors, a task that gives back what it got,
and a caller who keeps so many in flight.

    queues.py call NAME URL IN_FLIGHT SECONDS    prints a JSON object: how many came back, in how many seconds, and latencies in us
    queues.py work NAME URL                      becomes the workers
"""

import collections
import json
import os
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PAYLOAD = {"request": "550e8400-e29b-41d4-a716-446655440000", "items": ["hello", "again"], "text": "x" * 200}
WORKERS = 2


def celery_app(url):
    from celery import Celery

    app = Celery("queues", broker=url, backend=url)
    # Nothing that the other two do not do either; a task is given back when its worker dies.
    app.conf.update(task_acks_late=True, worker_prefetch_multiplier=4, broker_connection_retry_on_startup=True,
                    worker_send_task_events=False, result_expires=3600)

    @app.task(name="echo")
    def echo(payload):
        return payload

    return app, echo


def celery(url):
    _, echo = celery_app(url)
    return lambda: echo.delay(PAYLOAD), lambda sent: sent.get(timeout=60)


def rq_echo(payload):
    return payload


def rq(url):
    import redis
    from rq import Queue

    queue = Queue(connection=redis.Redis.from_url(url))

    def result(job):
        found = job.latest_result(timeout=60)
        assert found is not None and found.return_value == PAYLOAD
        return found.return_value

    return lambda: queue.enqueue("queues.rq_echo", PAYLOAD, result_ttl=3600), result


def dramatiq_actor(url):
    import dramatiq
    from dramatiq.brokers.redis import RedisBroker
    from dramatiq.results import Results
    from dramatiq.results.backends import RedisBackend

    broker = RedisBroker(url=url)
    broker.add_middleware(Results(backend=RedisBackend(url=url)))
    dramatiq.set_broker(broker)

    @dramatiq.actor(store_results=True)
    def echo(payload):
        return payload

    return echo


def dramatiq(url):
    echo = dramatiq_actor(url)
    return lambda: echo.send(PAYLOAD), lambda sent: sent.get_result(block=True, timeout=60_000)


def call(name, url, in_flight, seconds):
    send, result = {"celery": celery, "rq": rq, "dramatiq": dramatiq}[name](url)
    # The workers are up when one has answered.
    assert result(send()) == PAYLOAD
    flying, latencies = collections.deque(), []
    start = time.monotonic()
    while True:
        now = time.monotonic()
        while now - start < seconds and len(flying) < in_flight:
            flying.append((time.monotonic(), send()))
        if not flying:
            break
        begun, sent = flying.popleft()
        assert result(sent) == PAYLOAD
        latencies.append(int((time.monotonic() - begun) * 1e6))
    print(json.dumps({"seconds": time.monotonic() - start, "latencies_us": latencies}))


def work(name, url):
    paths = os.pathsep.join([HERE, os.environ.get("PYTHONPATH", "")])
    environment = dict(os.environ, PYTHONPATH=paths, QUEUES_URL=url)
    python = [sys.executable, "-m"]
    if name == "celery":
        program = [*python, "celery", "-A", "queues:celery_for_workers", "worker", "-c", str(WORKERS), "-l", "ERROR",
                   "--without-gossip", "--without-mingle", "--without-heartbeat"]
    elif name == "rq":
        program = [*python, "rq.cli", "worker-pool", "-n", str(WORKERS), "-u", url, "-w", "rq.SimpleWorker", "-q"]
    else:
        program = [*python, "dramatiq", "queues:dramatiq_for_workers", "-p", str(WORKERS), "-t", "8"]
    os.chdir(HERE)
    os.execvpe(program[0], program, environment)


def __getattr__(wanted):
    if wanted == "celery_for_workers":
        return celery_app(os.environ["QUEUES_URL"])[0]
    if wanted == "dramatiq_for_workers":
        dramatiq_actor(os.environ["QUEUES_URL"])
        import dramatiq as library

        return library.get_broker()
    raise AttributeError(wanted)


if __name__ == "__main__":
    if sys.argv[1] == "work":
        work(sys.argv[2], sys.argv[3])
    else:
        call(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]))
