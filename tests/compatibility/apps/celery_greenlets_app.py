"""Celery with a pool of greenlets: as ``celery_app``, and jobs that ask a model beside each other."""

import time

import celery_app
from celery_app import app

import bulkscope


@app.task(name="infers")
def infers(bulk_id=None):
    with bulkscope.inference(model="tiny") as call:
        time.sleep(0.2)
        call.tokens(input=3, output=5)


def publish():
    celery_app.publish()
    for _ in range(4):
        infers.delay(bulk_id="b-infers")
