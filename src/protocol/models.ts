/**
 * The list of models on the wire.
 *
 * @module
 */

/** One served model. */
export interface WireModel {
  id: string;
  object: "model";
  /** Unix time in seconds from which the model has been served. */
  created: number;
  owned_by: string;
}

/** All served models. */
export interface WireModelList {
  object: "list";
  data: WireModel[];
}

/** The shape of one model. */
export function wireModel(id: string, created: number): WireModel {
  return { id, object: "model", created, owned_by: "llamero" };
}

/** The shape of a list of models. */
export function wireModelList(data: WireModel[]): WireModelList {
  return { object: "list", data };
}
