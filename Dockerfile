# One image holds the operator and the steps, for every platform. Wheels are fetched on the build's own platform for
# the target's, so that the only thing that is emulated when building for another architecture is apt.
ARG PYTHON=3.13
ARG BUILDKIT=v0.32.2
# A release pins them, as @sha256:…: hack/release/bases.py.
ARG PYTHON_DIGEST=
ARG BUILDKIT_DIGEST=

FROM --platform=$BUILDPLATFORM python:${PYTHON}-slim${PYTHON_DIGEST} AS packages
ARG PYTHON TARGETARCH
COPY requirements.lock /src/
RUN case "$TARGETARCH" in amd64) machine=x86_64 ;; arm64) machine=aarch64 ;; *) machine="$TARGETARCH" ;; esac \
    && pip install --quiet --no-compile --no-cache-dir --require-hashes --requirement /src/requirements.lock \
        --only-binary=:all: --implementation cp --python-version "$PYTHON" --target /packages \
        --platform "manylinux2014_$machine" --platform "manylinux_2_28_$machine"
COPY operator/multiarchbuild /packages/multiarchbuild
# Compiled here, natively: the root filesystem of the pods is read-only, and a step's start counts.
RUN python -m compileall -q -j 0 --invalidation-mode unchecked-hash /packages
# So is the standard library, which the image of Python leaves as text: each start of a step would compile it again.
RUN stdlib=$(python -c 'import sysconfig; print(sysconfig.get_path("stdlib"))') && mkdir /compiled \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash \
        -x '(site|dist)-packages|/(ensurepip|idlelib|lib2to3|pydoc_data|test|tkinter|turtledemo)/' "$stdlib" \
    && find "$stdlib" -name __pycache__ -not -path '*-packages/*' -print0 | tar -c --null -T - | tar -x -C /compiled

FROM moby/buildkit:${BUILDKIT}-rootless${BUILDKIT_DIGEST} AS buildkit

# The emulators are unpacked on the build's own platform: nothing of the other architecture runs.
FROM --platform=$BUILDPLATFORM python:${PYTHON}-slim${PYTHON_DIGEST} AS emulators
ARG TARGETARCH
# Linked statically since Debian 13.
RUN if [ "$TARGETARCH" != "$(dpkg --print-architecture)" ]; then dpkg --add-architecture "$TARGETARCH"; fi \
    && apt-get update -q && cd /tmp && apt-get download -q "qemu-user:$TARGETARCH" \
    && dpkg -x qemu-user_*.deb /unpacked && mkdir /emulators \
    && for name in i386 x86_64 arm aarch64 loongarch64 ppc64le riscv64 s390x; do \
        cp -L "/unpacked/usr/bin/qemu-$name" /emulators/ || exit 1; done \
    && mkdir /record && dpkg-deb --field qemu-user_*.deb > /record/qemu-user

# For the QEMU DaemonSet of the chart (target `qemu`): where no distribution has its emulators, see qemu/register.py.
FROM python:${PYTHON}-slim${PYTHON_DIGEST} AS qemu
COPY --from=emulators /emulators /usr/lib/multiarchbuild/qemu
# dpkg has not installed it: without this nothing in the image, and no scanner, knows its version.
COPY --from=emulators /record /var/lib/dpkg/status.d
COPY --from=packages /packages /opt/multiarchbuild
ENV PYTHONPATH=/opt/multiarchbuild PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
ENTRYPOINT ["python", "-m", "multiarchbuild", "qemu"]

# For the DaemonSet that loads an AppArmor profile: the one program, and none of what the package sets up on a host.
FROM --platform=$BUILDPLATFORM python:${PYTHON}-slim${PYTHON_DIGEST} AS apparmor
ARG TARGETARCH
RUN if [ "$TARGETARCH" != "$(dpkg --print-architecture)" ]; then dpkg --add-architecture "$TARGETARCH"; fi \
    && apt-get update -q && cd /tmp && apt-get download -q "apparmor:$TARGETARCH" \
    && dpkg -x apparmor_*.deb /unpacked && mkdir -p /parser/usr/sbin /parser/etc/apparmor.d/abi /parser/var/lib/dpkg/status.d \
    && cp /unpacked/usr/sbin/apparmor_parser /parser/usr/sbin/ && cp /unpacked/etc/apparmor.d/abi/4.0 /parser/etc/apparmor.d/abi/ \
    && dpkg-deb --field apparmor_*.deb > /parser/var/lib/dpkg/status.d/apparmor

FROM python:${PYTHON}-slim${PYTHON_DIGEST} AS operator
# ssh refuses to run for a user that has no name.
RUN apt-get update -q && apt-get install -qy --no-install-recommends git git-lfs openssh-client \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/log/dpkg.log /var/log/apt \
    && echo 'multiarchbuild:x:1000:1000::/nonexistent:/usr/sbin/nologin' >> /etc/passwd
COPY --from=buildkit /usr/bin/buildctl /usr/bin/buildctl
COPY --from=apparmor /parser /
COPY --from=packages /compiled /
COPY --from=packages /packages /opt/multiarchbuild
ENV PYTHONPATH=/opt/multiarchbuild PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 1000:1000
ENTRYPOINT ["python", "-m", "multiarchbuild"]
CMD ["run"]
