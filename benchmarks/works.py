"""All works by name, in the order of the report. Each subject is a file with some works."""

import bulk
import gil
import main_job
import one_way
import perceptron
import pool
import round_trips
import scale
import serializing
import starting
import threads
import users

SUBJECTS = {
    "round trips": round_trips.WORKS,
    "one way": one_way.WORKS,
    "bulk": bulk.WORKS,
    "serializer": serializing.WORKS,
    "start": starting.WORKS,
    "gil": gil.WORKS,
    "main job": main_job.WORKS,
    "tagging": perceptron.WORKS,
    "pool": pool.WORKS,
    "scale": scale.WORKS,
    "threads": threads.WORKS,
    "users": users.WORKS,
}

WORKS = {name: work for works in SUBJECTS.values() for name, work in works.items()}
