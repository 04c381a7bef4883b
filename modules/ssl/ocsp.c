/* SPDX-License-Identifier: BSD-2-Clause */
/*
 * Questions about certificates and what their answers are worth. An answer counts if whom we trust has signed it,
 * if it is about the very certificate, and if it is in force now.
 */
#include <openssl/err.h>
#include <stdlib.h>

#include "core/base/clock.h"
#include "modules/ssl/ocsp.h"

#define SKEW_S 300 /* by so much may the clocks of responder and host differ */

int ocsp_subject_init(struct ocsp_subject *s, X509 *cert, X509 *issuer)
{
    OCSP_REQUEST *request = OCSP_REQUEST_new();
    OCSP_CERTID *id;
    unsigned char *p;
    int len = -1;

    *s = (struct ocsp_subject){ .id = OCSP_cert_to_id(NULL, cert, issuer) };
    id = s->id != NULL ? OCSP_CERTID_dup(s->id) : NULL;
    if (request != NULL && id != NULL && OCSP_request_add0_id(request, id) != NULL) {
        id = NULL;
        len = i2d_OCSP_REQUEST(request, NULL);
    }
    OCSP_CERTID_free(id);
    if (len > 0) {
        p = mem_alloc((size_t) len);
        s->request = str_from((char *) p, (size_t) len);
        i2d_OCSP_REQUEST(request, &p);
    }
    OCSP_REQUEST_free(request);
    if (len > 0)
        return 0;
    ocsp_subject_free(s);
    return -1;
}

void ocsp_subject_free(struct ocsp_subject *s)
{
    OCSP_CERTID_free(s->id);
    free((char *) s->request.ptr);
    *s = (struct ocsp_subject){ .id = NULL };
}

time_t ocsp_time(const ASN1_GENERALIZEDTIME *t)
{
    int days, seconds;

    if (t == NULL || ASN1_TIME_diff(&days, &seconds, NULL, t) != 1)
        return 0;
    return time(NULL) + (time_t) days * 86400 + seconds;
}

static int judge_single(const struct ocsp_subject *s, OCSP_BASICRESP *basic,
                        const struct logger *log, struct ocsp_verdict *out)
{
    ASN1_GENERALIZEDTIME *this_update, *next_update;

    if (OCSP_resp_find_status(basic, s->id, &out->status, NULL, NULL, &this_update, &next_update) !=
        1) {
        log_error(log, 0, "certificate status not found in the OCSP response%s", ssl_errors());
        return -1;
    }
    if (OCSP_check_validity(this_update, next_update, SKEW_S, -1) != 1) {
        log_error(log, 0, "OCSP_check_validity() failed%s", ssl_errors());
        return -1;
    }
    out->valid = next_update != NULL ? ocsp_time(next_update) : 0;
    if (next_update == NULL || out->valid != 0)
        return 0;
    log_error(log, 0, "invalid nextUpdate time in certificate status");
    return -1;
}

int ocsp_judge(const struct ocsp_subject *s, const struct ocsp_trust *trust, struct str der,
               const struct logger *log, struct ocsp_verdict *out)
{
    const unsigned char *p = (const unsigned char *) der.ptr;
    OCSP_RESPONSE *response = d2i_OCSP_RESPONSE(NULL, &p, (long) der.len);
    OCSP_BASICRESP *basic = NULL;
    int status, rc = -1;

    if (response == NULL) {
        log_error(log, 0, "d2i_OCSP_RESPONSE() failed%s", ssl_errors());
        return -1;
    }
    status = OCSP_response_status(response);
    if (p != (const unsigned char *) der.ptr + der.len) {
        log_error(log, 0, "trailing bytes behind the OCSP response");
    } else if (status != OCSP_RESPONSE_STATUS_SUCCESSFUL) {
        log_error(log, 0, "OCSP response not successful (%d: %s)", status,
                  OCSP_response_status_str(status));
    } else if ((basic = OCSP_response_get1_basic(response)) == NULL) {
        log_error(log, 0, "OCSP_response_get1_basic() failed%s", ssl_errors());
    } else if (OCSP_basic_verify(basic, trust->certs, trust->store, trust->flags) != 1) {
        log_error(log, 0, "OCSP_basic_verify() failed%s", ssl_errors());
    } else {
        rc = judge_single(s, basic, log, out);
    }
    OCSP_BASICRESP_free(basic);
    OCSP_RESPONSE_free(response);
    ERR_clear_error();
    return rc;
}
