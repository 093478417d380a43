/*
 * Ports of the loopback for the servers of a test program. Programs that run at the same time have
 * ports of their own: what one finds free another does not take.
 */
#ifndef HF_TEST_SUPPORT_PORT_H
#define HF_TEST_SUPPORT_PORT_H

#include <stdint.h>

/* One that is free, and that was not given lately. Ends the program if there is none. Main
 * thread. */
uint16_t support_free_port(void);

#endif
