"""Bring Elasticsearch and Kibana to what Bulkscope needs, as often as one likes: ``bulkscope setup``.

``plan`` says what is wanted (files and settings, no server), ``merge`` what differs, ``elasticsearch`` and ``kibana``
hold one function per step, ``apply`` runs steps.
"""
