#!/usr/bin/env bash
# A machine within this one: its own processes with systemd as the first one, network, host name, and this machine's files under a
# layer in memory that takes all that is written. What it does, this machine does not notice; what it has, ends with it.
# usage: unshare --mount machine.sh FOLDER GROUP REPOSITORY PROGRAM [MORE...]
#   FOLDER      an empty one
#   GROUP       a name for its control group
#   REPOSITORY  is its /srv/signpost, without what was built there
#   PROGRAM     becomes /srv/signpost/target/release/signpost
#   MORE        programs that go into its /usr/local/bin
set -euo pipefail
folder=$1 group=$2 repository=$3 program=$4

if [ "${inside:-}" != yes ]; then
    # systemd wants a tree of control groups. This one is empty but for it, so it has no controllers to give to anybody.
    mkdir "$folder/groups" "$folder/layer"
    mount -t cgroup2 none "$folder/groups"
    mkdir "$folder/groups/$group"
    echo $$ >"$folder/groups/$group/cgroup.procs"
    inside=yes exec unshare --mount --pid --net --uts --ipc --cgroup --fork --kill-child bash "$0" "$@"
fi

shift 4
mount -t tmpfs -o mode=755 none "$folder/layer"
# cover DIRECTORY PLACE: shows it there, and keeps what is written in memory.
cover() {
    local layer
    layer=$(mktemp -d "$folder/layer/XXXXXX")
    mkdir "$layer/upper" "$layer/work"
    mount -t overlay none -o "lowerdir=$1,upperdir=$layer/upper,workdir=$layer/work" "$2"
}
mkdir "$folder/layer/root"
cover / "$folder/layer/root"
cd "$folder/layer/root"

mount -t proc none proc
# Kernel settings are this machine's, too.
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro none sys
mount -t cgroup2 none sys/fs/cgroup
mount -t tmpfs -o mode=755 none dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666,mode=620 none dev/pts
mount -t tmpfs -o mode=1777 none dev/shm
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd

# Nothing of what this machine's administrator has set up.
for own in run root; do mount -t tmpfs -o mode=755 none "$own"; done
rm -rf etc/systemd/system etc/fstab etc/resolv.conf etc/hosts srv/signpost
mkdir -p etc/systemd/system srv/signpost usr/local/bin
touch etc/fstab etc/resolv.conf
echo 127.0.0.1 localhost prometheus >etc/hosts
echo 0123456789abcdef0123456789abcdef >etc/machine-id
cat >etc/systemd/system/bare.target <<UNIT
[Unit]
Description=Nothing is started but what is asked for
DefaultDependencies=no
UNIT
cover "$repository" srv/signpost
if [ -L srv/signpost/target ]; then rm srv/signpost/target; fi
mkdir -p srv/signpost/target
mount -t tmpfs -o mode=755 none srv/signpost/target
mkdir srv/signpost/target/release
touch srv/signpost/target/release/signpost
mount --bind "$program" srv/signpost/target/release/signpost
for more in "$@"; do install -m 755 "$more" usr/local/bin/; done
# After all that was copied from there.
mount -t tmpfs -o mode=1777 none tmp

ip link set lo up
# Addresses that the documents have: of name servers (RFC 5737), and of a cluster's internal view.
for address in 192.0.2.1 198.51.100.1 10.20.0.53; do ip address add "$address/32" dev lo; done

mkdir old
pivot_root . old
umount --lazy old
rmdir old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    setpriv --bounding-set=-sys_module,-sys_time,-sys_rawio,-syslog,-mac_admin,-mac_override,-wake_alarm,-block_suspend,-bpf,-perfmon \
    /lib/systemd/systemd --system --unit=bare.target --log-target=journal --show-status=no
