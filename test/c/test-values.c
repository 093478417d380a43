/* Values by the public interface: what is refused before the store sees it. */
#include "support-host.h"

static void never(hf_op *op) {
    (void)op;
    FAIL("done ran for an op that was refused");
}

static hf_code submit(host *h, hf_verb verb, hf_space space, const hf_slice *key) {
    hf_op op;
    hf_error error;
    hf_op_init(&op, verb, never, NULL);
    op.space = (uint8_t)space;
    op.keys = key;
    hf_code code = hf_submit(h->client, &op, &error);
    CHECK_INT(error.code, code);
    return code;
}

TEST(refuses_what_is_not_valid) {
    host h;
    const hf_slice key = slice("k"), empty = slice(""), nul = {"a\0b", 3};
    host_open(&h, "memory:");
    /* A record has functions of its own, and an op that names no namespace asks for leases. */
    CHECK_INT(submit(&h, HF_PUT, HF_LEASES, &key), HF_EINVAL);
    CHECK_INT(submit(&h, HF_PUT, HF_RECORDS, &key), HF_EINVAL);
    CHECK_INT(submit(&h, HF_GET, HF_RECORDS, &key), HF_EINVAL);
    CHECK_INT(submit(&h, HF_LIST, HF_VALUES, &key), HF_EINVAL);
    CHECK_INT(submit(&h, HF_TAKE, HF_LEASES, &key), HF_EINVAL);
    CHECK_INT(submit(&h, HF_CLOSE, HF_VALUES, &key), HF_EINVAL);
    CHECK_INT(submit(&h, HF_PUT, HF_VALUES, &empty), HF_EINVAL);
    CHECK_INT(submit(&h, HF_ADD, HF_VALUES, &nul), HF_EINVAL);
    hf_client_close(h.client, 0, NULL, NULL);
    CHECK_INT(submit(&h, HF_GET, HF_VALUES, &key), HF_ECLOSED);
    host_close(&h);
}
