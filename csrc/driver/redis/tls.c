/* Until TLS is there: refuses. */
#include "driver/redis/tls.h"

hf_code hf__tls_context_new(const hf__tls_options *options, const hf_allocator *allocator,
                            hf__tls_context **out, hf_error *error) {
    (void)options;
    (void)allocator;
    (void)out;
    return hf__error_set(error, HF_ENOTSUP, 0, "TLS is not there yet");
}

void hf__tls_context_free(hf__tls_context *context) {
    (void)context;
}

hf__tls *hf__tls_new(hf__tls_context *context, const char *host) {
    (void)context;
    (void)host;
    return NULL;
}

void hf__tls_free(hf__tls *tls) {
    (void)tls;
}

bool hf__tls_handshake(hf__tls *tls, hf_error *error) {
    (void)tls;
    (void)error;
    return false;
}

bool hf__tls_receive(hf__tls *tls, const char *data, size_t len) {
    (void)tls;
    (void)data;
    (void)len;
    return false;
}

int hf__tls_read(hf__tls *tls, char *data, size_t size, hf_error *error) {
    (void)tls;
    (void)data;
    (void)size;
    (void)error;
    return -1;
}

bool hf__tls_write(hf__tls *tls, const char *data, size_t len, hf_error *error) {
    (void)tls;
    (void)data;
    (void)len;
    (void)error;
    return false;
}

hf_slice hf__tls_output(hf__tls *tls) {
    (void)tls;
    return (hf_slice){NULL, 0};
}

void hf__tls_sent(hf__tls *tls, size_t len) {
    (void)tls;
    (void)len;
}
