abi <abi/4.0>,

# For rootless BuildKit: what runtimes allow containers by default, and besides what it takes to run containers in one.
profile @@ flags=(attach_disconnected, mediate_deleted) {
  file,
  network,
  capability,
  mqueue,

  # Beyond the default. The kernel grants these over the namespaces that the builder has made, and over nothing else.
  userns,
  mount,
  umount,
  pivot_root,

  # The runtime stops the container; what is in it stops and traces itself.
  signal (receive) peer=unconfined,
  signal (receive) peer=runc,
  signal (receive) peer=crun,
  signal (send, receive) peer=@@,
  ptrace (trace, tracedby, read, readby) peer=@@,

  # What governs the kernel itself is of no use to a build.
  deny capability mac_admin,
  deny capability mac_override,
  deny capability sys_boot,
  deny capability sys_module,
  deny capability sys_rawio,
  deny capability sys_time,
  deny capability syslog,

  # Settings of the kernel. They have other paths where proc and sysfs are mounted once more, and belong to root there too.
  deny /proc/* w,
  deny /proc/{acpi,bus,fs,irq,scsi,tty}/** w,
  deny /proc/sys/[^k]** w,
  deny /proc/sys/kernel/{?,??,[^s][^h][^m]**} w,
  deny /proc/sysrq-trigger rwklx,
  deny /proc/kcore rwklx,
  deny /sys/[^f]*/** wklx,
  deny /sys/f[^s]*/** wklx,
  deny /sys/fs/[^c]*/** wklx,
  deny /sys/fs/c[^g]*/** wklx,
  deny /sys/fs/cg[^r]*/** wklx,
  deny /sys/devices/virtual/powercap/** rwklx,
  deny /sys/firmware/** rwklx,
  deny /sys/kernel/security/** rwklx,
}
