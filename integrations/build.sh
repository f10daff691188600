#!/bin/sh
# Builds with `kubectl mab build`, waits for the end, and hands on the image by its digest. The GitHub Action and the
# GitLab component run it; what they are told is in variables MAB_*, of which lists have one entry a line.
set -eu

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if [ -n "${MAB_KUBECONFIG:-}" ]; then
  (umask 077 && printf '%s\n' "$MAB_KUBECONFIG" >"$scratch/kubeconfig")
  KUBECONFIG="$scratch/kubeconfig"
  export KUBECONFIG
fi

if ! command -v kubectl-mab >/dev/null; then
  if [ -z "${MAB_PLUGIN:-}" ]; then
    echo "kubectl-mab is not installed: name the wheel of a release in the input plugin" >&2
    exit 2
  fi
  python3 -m venv "$scratch/venv"
  "$scratch/venv/bin/pip" install --quiet "$MAB_PLUGIN"
  PATH="$scratch/venv/bin:$PATH"
fi

set -- build
if [ -n "${MAB_MANIFEST:-}" ]; then
  set -- "$@" --file "$MAB_MANIFEST"
else
  set -- "$@" "${MAB_CONTEXT:-.}"
  [ -z "${MAB_PLATFORMS:-}" ] || set -- "$@" --platform "$MAB_PLATFORMS"
  [ -z "${MAB_DOCKERFILE:-}" ] || set -- "$@" --file "$MAB_DOCKERFILE"
  [ -z "${MAB_TARGET:-}" ] || set -- "$@" --target "$MAB_TARGET"
  [ -z "${MAB_NAME:-}" ] || set -- "$@" --name "$MAB_NAME"
  [ -z "${MAB_REGISTRY_SECRET:-}" ] || set -- "$@" --registry-secret "$MAB_REGISTRY_SECRET"
  while IFS= read -r line; do
    [ -z "$line" ] || set -- "$@" --tag "$line"
  done <<END
${MAB_TAGS:-}
END
  while IFS= read -r line; do
    [ -z "$line" ] || set -- "$@" --build-arg "$line"
  done <<END
${MAB_BUILD_ARGS:-}
END
fi
[ -z "${MAB_NAMESPACE:-}" ] || set -- "$@" --namespace "$MAB_NAMESPACE"
[ -z "${MAB_TIMEOUT:-}" ] || set -- "$@" --timeout "$MAB_TIMEOUT"
while IFS= read -r line; do
  [ -z "$line" ] || set -- "$@" "$line"
done <<END
${MAB_OPTIONS:-}
END

image=$(kubectl-mab "$@" --progress plain)
case $image in
  *@sha256:*) ;;
  *)
    echo "kubectl mab build has printed no image by digest, but: $image" >&2
    exit 1
    ;;
esac
echo "$image"
if [ -n "${GITHUB_OUTPUT:-}" ]; then
  printf 'image=%s\ndigest=%s\n' "$image" "${image##*@}" >>"$GITHUB_OUTPUT"
fi
if [ -n "${MAB_DOTENV:-}" ]; then
  printf 'MAB_IMAGE=%s\nMAB_DIGEST=%s\n' "$image" "${image##*@}" >"$MAB_DOTENV"
fi
