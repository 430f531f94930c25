"""A discrete-event simulator of the system that Bulkscope observes: stores whose truth is known.

``system`` describes it, ``engine`` runs it, ``ledger`` says what held the jobs up, ``records`` writes what the
instrumentation would have stored, ``scenarios`` lists systems with their verdict.
"""
