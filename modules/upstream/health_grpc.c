#include "modules/upstream/health.h"
