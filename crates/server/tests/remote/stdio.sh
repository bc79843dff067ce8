#!/bin/sh
# Stands for ssh: starts the server of stdio.rs on the socket that is standard input. The last
# argument is the command, if there is one.
WHARF_TEST_COMMAND=
for last; do WHARF_TEST_COMMAND=$last; done
export WHARF_TEST_COMMAND
# What the test harness prints must not get into the stream.
exec "$WHARF_TEST_SERVER" --exact stdio::serve_standard_input --ignored --nocapture >/dev/null
