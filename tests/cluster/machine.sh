#!/usr/bin/env bash
# The first process of a machine made of namespaces: gives it mounts of its own and becomes its SSH server.
#
# machine.sh OWN KEPT...   OWN: the machine's folder. KEPT: folders that all machines see, as they are.
set -euo pipefail
own=$1
shift

mount -t tmpfs tmpfs /run
mkdir /run/sshd
mount -t tmpfs tmpfs /dev/shm

# The home of root, who may log in.
sed "s|^root:[^:]*:0:0:\([^:]*\):.*|root:x:0:0:\1:$own/home:/bin/bash|" /etc/passwd > "$own/passwd"
sed "s|^root:[^:]*:|root:*:|" /etc/shadow > "$own/shadow"
chmod 600 "$own/shadow"
mount --bind "$own/passwd" /etc/passwd
mount --bind "$own/shadow" /etc/shadow

# A temporary folder of its own, with those of the kept folders that lie in the old one.
for kept in "$@"; do
    if [[ $kept == /tmp/* && -d $kept ]]; then
        mkdir -p "$own$kept"
        mount --bind "$kept" "$own$kept"
    fi
done
mount --rbind "$own/tmp" /tmp

exec /usr/sbin/sshd -D -e -f "$own/sshd_config"
