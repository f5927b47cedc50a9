#!/bin/sh
# Builds moirai-image as moirai-tenant is built, for the same reasons. What panics aborts: nothing of
# a process that broke on an image may go on.
set -eu
exec "$(dirname "$0")/../vmm/build.sh" moirai-image moirai-image
