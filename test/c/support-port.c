#include "support-port.h"

#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* Below those that the system gives to outgoing connections. Programs that are started one after
 * another differ in their number. */
enum { FIRST = 21000, PROGRAMS = 100, EACH = 100 };

static bool is_free(uint16_t port) {
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    bool bound;

    if (fd < 0) return false;
    bound = bind(fd, (struct sockaddr *)&address, sizeof address) == 0;
    close(fd);
    return bound;
}

uint16_t support_free_port(void) {
    static int given;
    static int first;

    if (first == 0) first = FIRST + (int)(getpid() % PROGRAMS) * EACH;
    for (int i = 0; i < EACH; i++) {
        uint16_t port = (uint16_t)(first + given++ % EACH);
        if (is_free(port)) return port;
    }
    fprintf(stderr, "no port is free from %d on\n", first);
    exit(1);
}
