/*
 * Addresses of servers: as they are written, and as the system has them.
 */
#ifndef HF_DRIVER_ADDRESS_H
#define HF_DRIVER_ADDRESS_H

#include "holdfast.h"

#include <sys/socket.h>

#define HF__HOST_MAX 256 /* bytes of a host's name, the NUL included */

typedef struct hf__address {
    char host[HF__HOST_MAX]; /* a name, an IP address without brackets, or a socket's path */
    uint16_t port;           /* 0: `host` is the path of a unix socket */
} hf__address;

typedef struct hf__peer {
    struct sockaddr_storage address;
    socklen_t len;
} hf__peer;

/* "10.0.0.1:6379", "[::1]:6379" or a path. */
void hf__address_show(const hf__address *address, char *text, size_t size);
/* Reads "host", "host:port", "[::1]:port". False: it is not one. */
bool hf__address_read(hf_slice text, uint16_t port, hf__address *address);

#endif
