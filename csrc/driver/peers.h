/*
 * Where names led to when a server was last reached under them, known to all instances of a client.
 * The keeper does not wait for the pool of threads, which the host may have filled, to find out an
 * address that the host's own instance has found already. Any thread.
 */
#ifndef HF_DRIVER_PEERS_H
#define HF_DRIVER_PEERS_H

#include "core/store.h"
#include "driver/address.h"

/* `shared` NULL, or no memory: nothing is known. */
void hf__peers_note(hf__shared *shared, const hf__address *address, const hf__peer *peer);
bool hf__peers_find(hf__shared *shared, const hf__address *address, hf__peer *peer);
/* It led nowhere: the name may mean another by now. */
void hf__peers_forget(hf__shared *shared, const hf__address *address);

#endif
